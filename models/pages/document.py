"""A page before it is written: headings, tables, figures and pictures, which HTML and Markdown both render.

Every string is plain text; the renderers escape it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Tone = Literal["", "bad", "warning", "good", "quiet"]


@dataclass(frozen=True)
class Cell:
    """`detail` is small print below the text; `shade`, from 0 to 1, colours the background of a heat map's cell."""

    text: str
    tone: Tone = ""
    detail: str = ""
    shade: float | None = None


@dataclass(frozen=True)
class Row:
    """A table row; its first cell is its heading."""

    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class RowGroup:
    """Rows set apart under a title; no title when they are the table's main part."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Table:
    """`words`: its cells hold sentences rather than numbers; `folded`: HTML shows the caption until it is opened."""

    caption: str
    head: tuple[str, ...]
    groups: tuple[RowGroup, ...]
    words: bool = False
    folded: bool = False
    kind: Literal["table"] = "table"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    tone: Tone = ""
    kind: Literal["text"] = "text"


@dataclass(frozen=True)
class Facts:
    """Terms and what they are."""

    pairs: tuple[tuple[str, str], ...]
    kind: Literal["facts"] = "facts"


@dataclass(frozen=True)
class Figure:
    """An SVG that `canvas` drew, trusted as markup.

    `alt` says what it shows; `table` holds its numbers, and stands beside it where there is room unless it is folded.
    """

    svg: str
    caption: str
    alt: str
    table: Table | None = None


@dataclass(frozen=True)
class Figures:
    """Figures side by side where there is room."""

    items: tuple[Figure, ...]
    kind: Literal["figures"] = "figures"


@dataclass(frozen=True)
class Picture:
    """A PNG with what it shows."""

    png: bytes
    alt: str


@dataclass(frozen=True)
class PictureRow:
    """One image of the gallery in its several states."""

    caption: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Gallery:
    """Rows of pictures under common headings."""

    head: tuple[str, ...]
    rows: tuple[PictureRow, ...]
    kind: Literal["gallery"] = "gallery"


@dataclass(frozen=True)
class Point:
    """An item of a list: a mark such as `done`, a heading, the finding, and what to do about it."""

    mark: str
    title: str
    text: str
    advice: str = ""
    tone: Tone = ""


@dataclass(frozen=True)
class Points:
    """A list of items."""

    items: tuple[Point, ...]
    kind: Literal["points"] = "points"


@dataclass(frozen=True)
class Code:
    """Text to copy into a terminal, or a configuration."""

    text: str
    kind: Literal["code"] = "code"


Block = Text | Facts | Table | Figures | Gallery | Points | Code


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A page.

    Args:
        tab: the browser's title.
        number: the figure of the headline, shown large.
        tone: of the headline: bad news unless said otherwise.
        headline: the finding as a sentence.
        lead: what must be read with it.
    """

    title: str
    tab: str
    number: str
    headline: str
    lead: tuple[Block, ...]
    sections: tuple[Section, ...]
    tone: Tone = "bad"


def row(*cells: str | Cell) -> Row:
    """A row of texts and cells."""
    return Row(tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in cells))


def table(caption: str, head: Sequence[str], rows: Iterable[Row], words: bool = False, folded: bool = False) -> Table:
    """A table of one group."""
    return Table(caption, tuple(head), (RowGroup("", tuple(rows)),), words, folded)


def absent(anchor: str, title: str, reason: str) -> Section:
    """A section without data: says why."""
    return Section(anchor, title, (Text(f"Not run: {reason}.", "quiet"),))
