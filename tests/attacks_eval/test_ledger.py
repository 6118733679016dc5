"""The ledger: what a killed process had finished is there, what it was writing is not."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attacks_eval.defence import Cost
from attacks_eval.errors import ResultError
from attacks_eval.ledger import Ledger

QUESTION = {"plan": {"steps": (1, 2)}, "seed": 0}


def test_pieces_come_back_with_their_images(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, QUESTION, False, Cost())
    images = torch.rand(3, 2, 4, 4)
    for number, image in enumerate(images):
        ledger.add(("attack", "pgd", number), {"broken": number == 1}, image)
    ledger.add(("clean", 7), {"right": True})
    again = Ledger(tmp_path, QUESTION, True, Cost())
    assert again.get("attack", "pgd", 1)["broken"] is True  # type: ignore[index]
    assert again.get("attack", "pgd", 3) is None
    assert all(torch.equal(again.image("attack", "pgd", n), images[n]) for n in range(3))
    again.add(("attack", "pgd", 3), {}, images[0])
    assert torch.equal(Ledger(tmp_path, QUESTION, True, Cost()).image("attack", "pgd", 3), images[0])


def test_a_half_written_line_and_image_are_dropped(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, QUESTION, False, Cost())
    image = torch.rand(1, 2, 2)
    ledger.add(("a", 1), {"x": 1}, image)
    with ledger.images.open("ab") as stream:
        stream.write(b"123")
    with ledger.lines.open("ab") as stream:
        stream.write(b'{"key":["a",2],"x"')
    again = Ledger(tmp_path, QUESTION, True, Cost())
    assert again.get("a", 2) is None
    again.add(("a", 2), {"x": 2}, image + 1)
    last = Ledger(tmp_path, QUESTION, True, Cost())
    assert torch.equal(last.image("a", 1), image)
    assert torch.equal(last.image("a", 2), image + 1)


def test_a_killed_process_loses_at_most_the_piece_it_was_at(tmp_path: Path) -> None:
    """A child writes pieces until it is killed; every piece that it reported is whole."""
    code = f"""
import sys, torch
from pathlib import Path
from attacks_eval.defence import Cost
from attacks_eval.ledger import Ledger
ledger = Ledger(Path({str(tmp_path)!r}), {QUESTION!r}, False, Cost())
for number in range(100_000):
    ledger.add(("piece", number), {{"n": number}}, torch.full((3, 8, 8), float(number)))
    print(number, flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    reported = [int(child.stdout.readline()) for _ in range(40)]
    child.kill()
    child.stdout.close()
    child.wait()
    ledger = Ledger(tmp_path, QUESTION, True, Cost())
    for number in reported:
        assert ledger.get("piece", number)["n"] == number  # type: ignore[index]
        assert bool((ledger.image("piece", number) == number).all())


def test_another_question_or_a_forgotten_resume_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    Ledger(tmp_path, QUESTION, False, Cost()).add(("a",), {"x": 1})
    before = (tmp_path / "ledger.jsonl").read_bytes()
    with pytest.raises(ResultError, match="--resume"):
        Ledger(tmp_path, QUESTION, False, Cost())
    with pytest.raises(ResultError, match="seed"):
        Ledger(tmp_path, QUESTION | {"seed": 1}, True, Cost())
    assert (tmp_path / "ledger.jsonl").read_bytes() == before
    (tmp_path / "ledger.jsonl").write_text("{}\nnot json\n")
    with pytest.raises(ResultError, match="damaged"):
        Ledger(tmp_path, QUESTION, True, Cost())


def test_costs_add_up_over_sessions(tmp_path: Path) -> None:
    cost = Cost(image_steps=5)
    ledger = Ledger(tmp_path, QUESTION, False, cost)
    cost.image_steps += 10
    ledger.add(("attack", "pgd", 1), {})
    cost.image_steps += 7
    cost.backward_steps += 3
    ledger.add(("clean", 1), {})
    later = Cost()
    again = Ledger(tmp_path, QUESTION, True, later)
    later.image_steps += 100
    again.add(("attack", "pgd", 2), {})
    assert again.spent().image_steps == 117
    assert again.spent("attack", "pgd").image_steps == 110
    assert again.spent().backward_steps == 3


def test_every_commit_that_wrote_is_named(tmp_path: Path) -> None:
    Ledger(tmp_path, QUESTION, False, Cost()).begin_session("a" * 40)
    for commit in ("a" * 40, "b" * 40):
        ledger = Ledger(tmp_path, QUESTION, True, Cost())
        ledger.begin_session(commit)
    assert ledger.commits() == ["a" * 40, "b" * 40]
