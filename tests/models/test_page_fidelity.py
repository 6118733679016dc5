"""What the samples of a run scored, kept beside it and shown on its page."""

import json
from pathlib import Path

import pytest
import torch

from models.__main__ import main
from models.errors import DataError
from models.evaluation.fidelity import Estimate
from models.files import replace_file
from models.training.page_fidelity import append_fidelity, read_fidelity
from tests.models.test_diagnostics_page import SCORES, checkpoint, lines, page_of, said


def test_fidelity_is_kept_line_by_line(tmp_path: Path) -> None:
    """Also after a killed program's half line; what is measured again replaces what was there."""
    append_fidelity(tmp_path, 20, SCORES)
    with (tmp_path / "fidelity.jsonl").open("a") as stream:
        stream.write('{"update": 30, "na')
    append_fidelity(tmp_path, 10, SCORES[:1])
    again = SCORES[0].model_copy(update={"samples": Estimate(value=40.0)})
    append_fidelity(tmp_path, 20, [again])
    found = [(line.update, line.name, line.value, line.floor, line.count) for line in read_fidelity(tmp_path)]
    assert found == [
        (10, "FD-EffLite0", 41.5, 3.25, 500),
        (20, "FD-EffLite0", 40.0, 3.25, 500),
        (20, "KID-EffLite0", 0.02, 0.0001, 500),
    ]
    with (tmp_path / "fidelity.jsonl").open("a") as stream:
        stream.write('{"update": 30}\n')
    with pytest.raises(DataError, match=r"line 6 is .*expected update, name, value, floor, count"):
        read_fidelity(tmp_path)


def test_diagnose_adds_a_result_of_fidelity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, result = tmp_path / "run", tmp_path / "result.json"
    replace_file(run / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines(60)).encode())
    torch.save(checkpoint("digits_short", [], 60), run / "checkpoint.pt")
    told = {"samples": "a", "digest": "b", "data": "digits", "count": 500, "seed": 0, "features": "c"}
    scores = [score.model_dump() for score in SCORES]
    result.write_text(json.dumps({**told, "scores": scores, "commit": "d", "torch": "e"}))
    assert main(["diagnose", str(run), "--fidelity", str(result)]) == 0
    assert main(["diagnose", str(run), "--fidelity", str(result), "--at", "40"]) == 0
    assert {(line.update, line.name) for line in read_fidelity(run)} == {
        (at, score.name) for at in (40, 60) for score in SCORES
    }
    assert "FD-EffLite0, 500 images: at 40 41.5 (floor 3.25); at 60 41.5 (floor 3.25)." in said(page_of(run))
    capsys.readouterr()
    result.write_text("{}")
    assert main(["diagnose", str(run), "--fidelity", str(result)]) == 2
    assert f"{result} is no result of `python -m models fidelity`" in capsys.readouterr().err
    assert main(["diagnose", str(run), "--at", "3"]) == 2
    assert main(["diagnose", str(tmp_path / "none")]) == 2
