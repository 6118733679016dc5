"""A page as Markdown, for a terminal or a repository; figures become the tables of their numbers."""

import re

from models.pages.document import Block, Document, Figure, Point, Section, Table

SPECIAL = re.compile(r"[\\`*<>|~]|\](?=[(\[])|(?<!\w)_|_(?!\w)")


def render_markdown(document: Document) -> str:
    """The page, without pictures."""
    parts = [f"# {escape(document.title)}", f"**{escape(document.headline)}**"]
    parts += [part for block in document.lead for part in _block(block)]
    for section in document.sections:
        parts += _section(section)
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: str) -> str:
    """Text on one line that Markdown takes literally."""
    return SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))


def _section(section: Section) -> list[str]:
    return [f"## {escape(section.title)}", *(part for block in section.blocks for part in _block(block))]


def _block(block: Block) -> list[str]:
    match block.kind:
        case "text":
            return [f"**{escape(block.text)}**" if block.tone in ("bad", "warning") else escape(block.text)]
        case "facts":
            return ["\n".join(f"- {escape(term)}: {escape(what)}" for term, what in block.pairs)]
        case "table":
            return _table(block)
        case "figures":
            return [part for figure in block.items for part in _figure(figure)]
        case "gallery":
            return ["\n".join(f"- {escape(each.caption)}" for each in block.rows), "The pictures are in `report.html`."]
        case "points":
            return ["\n".join(_point(point) for point in block.items)]
        case "code":
            return ["\n".join(f"    {line}" for line in block.text.splitlines())]


def _figure(figure: Figure) -> list[str]:
    """The numbers of a figure without a table of its own are in the table beside it, or in its description."""
    return [escape(figure.caption), *(_table(figure.table) if figure.table else [escape(figure.alt)])]


def _point(point: Point) -> str:
    mark = {"good": "x", "bad": "!", "warning": " ", "": " ", "quiet": " "}[point.tone]
    line = f"- [{mark}] **{escape(point.mark)}: {escape(point.title)}.** {escape(point.text)}"
    return f"{line} → {escape(point.advice)}" if point.advice else line


def _table(table: Table) -> list[str]:
    lines = [list(table.head), ["---"] * len(table.head)]
    for group in table.groups:
        if group.title:
            lines.append([f"**{escape(group.title)}**", *[""] * (len(table.head) - 1)])
        for row in group.rows:
            lines.append([escape(f"{cell.text} {cell.detail}") for cell in row.cells])
    lines[0] = [escape(cell) for cell in table.head]
    return [escape(table.caption), "\n".join("| " + " | ".join(line) + " |" for line in lines)]
