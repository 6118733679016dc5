"""The notebook runs from training to the report, and its outputs are those of one run that ends with the worst case."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.docs.notebook import NOTEBOOK, execute

SMALL = "epochs, updates, count, preset, steps, eot = 3, 20, 2, 'fast', 1, 2"


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def text_of(output: Any) -> str:
    parts = output.get("text") or output.get("data", {}).get("text/markdown", "")
    return parts if isinstance(parts, str) else "".join(parts)


def check_ending(notebook: Any) -> None:
    """The last cell tells the worst case, and the table before it has it first and nothing below it."""
    *_, table, ending = code_cells(notebook)
    said = r"worst case: (\d+) of (\d+) images held at L-infinity 40/255; clean: \d+\n"
    match = re.fullmatch(said, text_of(ending["outputs"][-1]))
    assert match is not None
    held, total = map(int, match.groups())
    rows = [line.split("|")[1:3] for line in text_of(table["outputs"][-1]).splitlines()[2:]]
    assert rows[0][0].strip() == "worst case of all attacks"
    attacks = [float(share.split()[0]) for name, share in rows if "bare classifier," not in name]
    assert attacks[0] == pytest.approx(100 * held / total, abs=0.05)
    assert attacks[0] == min(attacks)


def test_outputs_that_are_kept_are_those_of_one_whole_run() -> None:
    text = NOTEBOOK.read_text()
    notebook = json.loads(text)
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert len(text) < 300_000
    assert not re.search(r"\\u001b|/tmp/|/home/|/root/|Warning|Traceback", text)
    check_ending(notebook)


def test_it_runs_from_training_to_the_worst_case(tmp_path: Path) -> None:
    """With less of everything: what it finds is then worth nothing, but is found in the same way."""
    pytest.importorskip("nbclient", reason="the extra `docs` is not installed")
    check_ending(execute(tmp_path, SMALL))
    runs = tmp_path / "runs" / "digits-notebook"
    found = json.loads((runs / "report" / "result.json").read_text())
    assert [each["name"] for each in found["attacks"]] == ["transfer-bare", "bpda-pgd", "smooth-pgd", "smooth-apgd"]
    assert found["weights"] in (runs / "report" / "report.md").read_text()
