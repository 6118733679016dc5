"""One matplotlib figure as SVG that can stand inside a page: no global state, the same bytes every time.

Ink is the page's own (`currentColor`), so that a figure suits a light and a dark page; the hues are of middling
lightness and told apart by colour-blind readers, and lines differ by dashes and markers too.
"""

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 5.4
INK, GRID = "#6e7681", "#8b949e"
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#3b87cf", "#d98a00", "#199e7a", "#d4512a", "#b06fc2", "#8b949e"
HUES = (BLUE, ORANGE, GREEN, RED, PURPLE, GREY)
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P")


def settings(name: str) -> Any:
    """matplotlib's settings for the figure of that name: a dict whose keys it types as a list of literals."""
    inks = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    return {
        **dict.fromkeys(inks, INK),
        "svg.hashsalt": name,
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.alpha": 0.3,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "lines.linewidth": 1.8,
        "lines.markersize": 4.5,
        "path.simplify": False,
    }


def draw(name: str, height: float, paint: Callable[["Axes"], None], legend: bool = False) -> str:
    """The SVG of a figure whose axes `paint` fills; `name` must be unique in its page."""
    # Imported here: matplotlib makes a font cache when it is first imported.
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(settings(name)):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        figure.patch.set_alpha(0.0)
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0.0)
        paint(axes)
        if legend:
            figure.legend(loc="outside lower center", ncols=2)
        stream = io.BytesIO()
        empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", metadata=empty)
    return inline(stream.getvalue().decode(), name)


def inline(svg: str, name: str) -> str:
    """matplotlib's file as an element: no prolog or own style sheet, ids of this figure only, the page's ink."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"| xmlns(?::\w+)?="[^"]*"| version="[^"]*"', "", svg, count=5)
    svg = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = svg.replace("xlink:href", "href").replace(INK, "currentColor")
    return re.sub(r"\n\s*\n", "\n", svg).replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
