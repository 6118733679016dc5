"""Results of the papers: what is published is what was measured, and the page says nothing else."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from models.errors import DataError
from models.reproduce.experiments import EXPERIMENTS, RESULT
from models.reproduce.page import PACKAGE, publish, published, render_results
from models.reproduce.result import Number, Reproduction

SPREAD = "standard deviation of 10 runs"


def write_result(folder: Path, name: str, ours: float) -> None:
    result = Reproduction(
        title=f"The title of {name}",
        source="section 4",
        numbers=(
            Number(
                what="accuracy", paper=64.99, paper_spread=4.27, ours=ours, ours_spread=2.5, spread=SPREAD, unit="%"
            ),
            Number(what="baseline", paper=None, ours=19.5, unit="%"),
            Number(what="other", paper=19.8, ours=20.0, unit="%", recalled=True),
        ),
        setting="small.",
        why="size.",
        pictures=("plots/curve.png",),
        cpu_hours=0.25,
        name=name,
        command=f"python -m models reproduce {name}",
        commit="0123456789abcdef",
        torch="2.13.0",
    )
    (folder / "plots").mkdir(parents=True)
    (folder / RESULT).write_text(result.model_dump_json())
    (folder / "plots/curve.png").write_bytes(ours.hex().encode())


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_listed_experiment_can_be_remade(name: str) -> None:
    assert callable(import_module(f"models.reproduce.{name.replace('-', '_')}").remake)


def test_publishing_replaces_one_experiment_and_keeps_the_others(tmp_path: Path) -> None:
    for name, ours in (("b", 1.0), ("a", 2.0), ("a", 3.0)):
        run = tmp_path / "runs" / f"{name}{ours}"
        write_result(run, name, ours)
        publish(run, tmp_path)
    assert [(each.name, each.numbers[0].ours) for each in published(tmp_path)] == [("a", 3.0), ("b", 1.0)]
    assert (tmp_path / "results" / "a" / "plots/curve.png").read_bytes() == (3.0).hex().encode()
    rows = [line for line in (tmp_path / "RESULTS.md").read_text().splitlines() if line.startswith("|")]
    assert rows[2:] == [
        "| [The title of a](#a) | accuracy | 64.99 ± 4.27 % | 3 ± 2.5 % |",
        "|  | baseline | - | 19.5 % |",
        "|  | other | 19.8 % (from memory) | 20 % |",
        "| [The title of b](#b) | accuracy | 64.99 ± 4.27 % | 1 ± 2.5 % |",
        "|  | baseline | - | 19.5 % |",
        "|  | other | 19.8 % (from memory) | 20 % |",
    ]


def test_a_damaged_result_is_named_and_nothing_is_published(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_result(run, "a", 1.0)
    publish(run, tmp_path)
    page = (tmp_path / "RESULTS.md").read_bytes()
    table = json.loads((run / RESULT).read_text())
    (run / RESULT).write_text(json.dumps(table | {"cpu_hours": "long"}))
    with pytest.raises(DataError, match=r"(?s)run/result\.json is not a result .*cpu_hours"):
        publish(run, tmp_path)
    assert (tmp_path / "RESULTS.md").read_bytes() == page


def test_the_page_is_what_the_results_say() -> None:
    page = PACKAGE / "RESULTS.md"
    assert page.exists() == bool(published())
    if page.exists():
        assert page.read_text() == render_results(published())
