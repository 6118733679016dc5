"""The search for the strongest defence: rows of real candidates, kept, refused, and put into a page."""

import json
from pathlib import Path

import pytest

from attacks_eval.__main__ import main
from attacks_eval.errors import ResultError
from attacks_eval.shares import share
from attacks_eval.strength.candidates import read_candidates
from attacks_eval.strength.command import MARKS, publish
from attacks_eval.strength.measure import Row
from attacks_eval.strength.parts import KEPT
from models.data import load_dataset
from models.errors import ConfigError, DataError
from models.networks import build_network
from models.training.frozen_parts import begin_from
from models.training.recipe import load_recipe
from models.training.run import read_metrics

LIST = """
[[candidate]]
name = "four"
about = "Four steps."
energy = "cifar10-midrun"
classifier = "cifar10-midrun"
chain = { num_steps = 4, step_size = 0.015, temperature = 5e-5, precision = "bfloat16", replicates = 2 }
sigma = 0.05

[[candidate]]
name = "alone"
about = "The classifier alone."
energy = "cifar10-midrun"
classifier = "cifar10-midrun"
chain = { num_steps = 0, step_size = 0.015, temperature = 5e-5, replicates = 1 }
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both candidates, each on two images."""
    try:
        load_dataset("cifar10", "train")
    except DataError as error:
        if "no source answered" not in str(error):
            raise
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("strength")
    (folder / "list.toml").write_text(LIST)
    assert main(arguments(folder)) == 0
    return folder


def arguments(folder: Path, images: int = 2) -> list[str]:
    sizes = [f"--images={images}", "--certified=1"]
    return ["strength", f"--list={folder / 'list.toml'}", *sizes, f"--out={folder / 'out'}", "--device=cpu"]


def row(folder: Path, name: str) -> Row:
    return Row.model_validate_json((folder / "out" / "rows" / name / "row.json").read_bytes())


def test_a_row_is_attacked_as_its_candidate_is_made(out: Path) -> None:
    four, alone = row(out, "four"), row(out, "alone")
    assert set(four.held) == {"transfer-bare", "bpda-pgd", "smooth-pgd", "smooth-apgd", "square"}
    # Nothing random and nothing to replace stands before the classifier alone: its gradients are exact.
    assert set(alone.held) == {"transfer-bare", "full-pgd", "full-apgd", "square"}
    assert "Exact gradients are blind" not in alone.warnings
    for each in (four, alone):
        assert each.worst.correct <= min(held.correct for held in each.held.values()) <= each.clean.correct
    assert alone.worst.correct == 0
    assert alone.clean == alone.bare == four.bare
    assert set(four.certified) == {"0.25", "0.5"}
    # 1,000 draws at sigma 0.05 cannot certify further than 0.05 * 2.46.
    assert four.certified["0.25"].correct == 0
    assert four.parameters == alone.parameters
    assert (out / "out" / "strength.png").read_bytes().startswith(b"\x89PNG")


def test_a_finished_row_is_kept_and_another_question_refused(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = out / "out" / "rows" / "four" / "row.json"
    before = path.stat().st_mtime_ns
    assert main(arguments(out)) == 0
    assert path.stat().st_mtime_ns == before
    capsys.readouterr()
    assert main(arguments(out, images=4)) == 2
    assert "belongs to another run" in " ".join(capsys.readouterr().err.split())


def test_the_table_goes_between_the_marks_of_its_page(out: Path, tmp_path: Path) -> None:
    page = tmp_path / "STRENGTH.md"
    page.write_text(f"before\n{MARKS[0]}old\n{MARKS[1]}after\n")
    rows = [row(out, name) for name in ("four", "alone")]
    rows[0] = rows[0].model_copy(update={"worst": share(1, 2)})
    publish(rows, tmp_path)
    text = page.read_text()
    assert text.startswith(f"before\n{MARKS[0]}| candidate |")
    assert text.endswith(f"{MARKS[1]}after\n")
    assert "| four |" in text
    assert "**50 [9, 91]**" in text
    assert "old" not in text
    assert Row.model_validate_json((tmp_path / "strength" / "alone.json").read_bytes()) == rows[1]
    page.write_text("no marks")
    with pytest.raises(ResultError, match="expected each of"):
        publish(rows, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('name = "alone"', 'name = "four"'), "names of their own, got four twice"),
        (("num_steps = 4", "num_steps = -4"), "greater than or equal to 0"),
        (("[[candidate]]", "[parts.a]\nrecipe='x'\nafter=['b']\n[[candidate]]"), "parts.a.after: no part is called b"),
    ],
)
def test_a_list_that_says_two_things_is_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    (tmp_path / "list.toml").write_text(LIST.replace(*change, 1))
    with pytest.raises(ConfigError, match=message):
        read_candidates(tmp_path / "list.toml")


def test_the_list_that_ships_names_parts_and_bundles_that_there_are() -> None:
    listed = read_candidates()
    zoo = {path.name for path in (Path(__file__).parents[2] / "models" / "zoo").iterdir()}
    for each in listed.candidates:
        assert {each.energy, each.classifier} <= zoo | listed.parts.keys() | {"own"}
    with pytest.raises(ConfigError, match="unknown candidate 'x'; known: natural"):
        listed.named("x")


@pytest.mark.parametrize("part", sorted(KEPT.iterdir()), ids=lambda path: path.name)
def test_parts_that_are_kept_are_what_their_recipes_say(part: Path) -> None:
    listed = read_candidates()
    recipe = json.loads((part / "recipe.json").read_text())
    asked = load_recipe(listed.parts[part.name].recipe, listed.parts[part.name].overrides)
    assert json.loads(asked.model_dump_json()) == recipe
    network = build_network(recipe["network"]["name"], recipe["network"]["arguments"])
    begin_from(network, part, recipe["kind"])
    assert read_metrics(part)[-1]["cpu_seconds"] > 60
