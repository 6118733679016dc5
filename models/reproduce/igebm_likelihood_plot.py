"""Bits a pixel against the temperature of a density, between both ends of log Z."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

STYLES = ("-", "--", ":", "-.")


def plot_likelihood(found: Mapping[float, dict[str, Any]], others: Mapping[str, float], path: Path) -> None:
    """A band for each set of images, from where they are worth most to where least, and a line for each other density.

    Args:
        found: by multiple of learning's temperature, with a "likelihood".
    """
    # The object interface: pyplot keeps global state and wants a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    times = sorted(found)
    for number, name in enumerate(("train", "test")):
        likelihoods = [found[each]["likelihood"]["likelihood"][name] for each in times]
        low, high = ([each[end]["bits_per_dimension"] for each in likelihoods] for end in ("at_most", "at_least"))
        axis.fill_between(times, low, high, color=f"C{number}", alpha=0.25)
        axis.plot(times, low, "o-", color=f"C{number}", label=f"{name} images, by log Z from below")
        axis.plot(times, high, "o--", color=f"C{number}", label=f"{name} images, by log Z from above")
    for style, (name, bits) in zip(STYLES, others.items(), strict=False):
        axis.axhline(bits, color="black", linestyle=style, linewidth=0.8, label=name)
    axis.set_xscale("log")
    axis.set_xlabel("temperature, in multiples of learning's")
    axis.set_ylabel("bits a pixel")
    axis.legend(fontsize="small")
    figure.savefig(path, dpi=150)
