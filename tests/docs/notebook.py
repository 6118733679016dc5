"""Executes the notebook of the documentation: `python -m tests.docs.notebook` writes its outputs into it."""

import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.docs.pages import ROOT

NOTEBOOK = ROOT / "docs" / "notebooks" / "digits.ipynb"
COLOURS = re.compile(r"\x1b\[[?\d;]*[A-Za-z]")


def execute(folder: Path, parameters: str | None = None) -> Any:
    """The notebook as it comes out when it runs in `folder`; `parameters` replaces the cell of that tag."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if parameters is not None and "parameters" in cell.metadata.get("tags", ()):
            cell.source = parameters
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=3600, coalesce_streams=True, record_timing=False, resources=resources)
    client.execute(env=os.environ | {"PYTHONPATH": str(ROOT)})
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                output.text = _settled(output.text)
            output.get("data", {}).pop(
                "image/jpeg", None
            )  # the same picture as the PNG beside it, and not the same pixels
    return notebook


def _settled(text: str) -> str:
    """What a terminal shows in the end: no colours, and of a bar its last state."""
    lines = (line.rstrip("\r").rpartition("\r")[2].rstrip() for line in COLOURS.sub("", text).split("\n"))
    return "\n".join(line for line in lines if line) + "\n"


if __name__ == "__main__":
    import nbformat

    with TemporaryDirectory() as scratch:
        nbformat.write(execute(Path(scratch)), NOTEBOOK)
