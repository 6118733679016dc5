"""Each notebook of docs/ is a page as well: its text, its code, and the outputs that it was executed to."""

import json
from pathlib import PurePosixPath
from textwrap import indent
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

LONGEST = 16
"""Lines that a cell may print before they are folded."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page beside each notebook, which can still be downloaded."""
    for file in [each for each in files if each.src_uri.endswith(".ipynb")]:
        name = PurePosixPath(file.src_uri)
        text = f"{render(json.loads(file.content_string))}\n\n[This page as a notebook]({name.name})\n"
        files.append(File.generated(config, str(name.with_suffix(".md")), content=text))
    return files


def render(notebook: dict[str, Any]) -> str:
    """A notebook of format 4 as Markdown; raises PluginError for an output of a kind that no page can show."""
    return "\n\n".join(_cell(each) for each in notebook["cells"])


def _cell(cell: dict[str, Any]) -> str:
    source = _text(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    outputs = [_output(output, cell["metadata"].get("alt")) for output in cell["outputs"]]
    return "\n\n".join([f"```python\n{source}\n```", *outputs])


def _output(output: dict[str, Any], alt: str | None) -> str:
    """`alt`, of the cell's metadata, says what a picture shows to those who do not see it."""
    if output["output_type"] == "stream":
        return _printed(_text(output["text"]))
    shown = output.get("data", {})
    if "image/png" in shown:
        if not alt:
            raise PluginError("a notebook's cell that shows a picture needs words for it: `alt` in its metadata")
        return f'<img alt="{_attribute(alt)}" src="data:image/png;base64,{_text(shown["image/png"]).strip()}">'
    if "text/markdown" in shown:
        return _text(shown["text/markdown"])
    if "text/plain" in shown:
        return _printed(_text(shown["text/plain"]))
    raise PluginError(f"a notebook's output of type {output['output_type']} with {', '.join(shown) or 'nothing'}")


def _printed(text: str) -> str:
    """A block, folded where it is long."""
    block = f"```text\n{text.rstrip()}\n```"
    if block.count("\n") <= LONGEST:
        return block
    return f'??? note "Printed: {block.count(chr(10)) - 1} lines"\n' + indent(block, "    ")


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")


def _text(lines: str | list[str]) -> str:
    """The format holds text whole or as a list of lines."""
    return lines if isinstance(lines, str) else "".join(lines)
