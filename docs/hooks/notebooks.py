"""Each notebook of docs/ is a page as well: its text, its code, and the outputs that it was executed to."""

import json
from pathlib import PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files


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
    return "\n\n".join([f"```python\n{source}\n```", *map(_output, cell["outputs"])])


def _output(output: dict[str, Any]) -> str:
    if output["output_type"] == "stream":
        return _printed(_text(output["text"]))
    shown = output.get("data", {})
    if "image/png" in shown:
        words = shown.get("text/plain", "picture")
        return f'<img alt="{_attribute(_text(words))}" src="data:image/png;base64,{_text(shown["image/png"]).strip()}">'
    if "text/markdown" in shown:
        return _text(shown["text/markdown"])
    if "text/plain" in shown:
        return _printed(_text(shown["text/plain"]))
    raise PluginError(f"a notebook's output of type {output['output_type']} with {', '.join(shown) or 'nothing'}")


def _printed(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```"


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")


def _text(lines: str | list[str]) -> str:
    """The format holds text whole or as a list of lines."""
    return lines if isinstance(lines, str) else "".join(lines)
