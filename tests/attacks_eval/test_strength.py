"""The search for the strongest defence: rows of real candidates, kept, refused, and put into a page."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from attacks_eval.__main__ import main
from attacks_eval.errors import ResultError
from attacks_eval.evaluation import Evaluation
from attacks_eval.gradients import FULL
from attacks_eval.purifiers import LangevinPurifier
from attacks_eval.shares import share
from attacks_eval.strength.bundles import bundle_rows
from attacks_eval.strength.candidates import read_candidates
from attacks_eval.strength.command import REPORTS, marks, publish
from attacks_eval.strength.cooling import CoolingNoise, CoolingPurifier
from attacks_eval.strength.measure import Row, Setting, plan_for, row_of
from attacks_eval.strength.parts import KEPT, Parts
from attacks_eval.strength.table import right_at_worst
from models.data import load_dataset
from models.errors import ConfigError, DataError
from models.networks import build_network
from models.networks.energy import LightEnergy
from models.pixels import Normalisation
from models.purifier import Preset, PurifiedClassifier
from models.streams import ChainNoise, Stream
from models.training.frozen_parts import begin_from
from models.training.kept_parts import spent
from models.training.recipe import load_recipe
from models.training.run import read_metrics

LIST = """
[mixed.twice]
robust = "cifar10-midrun"
accurate = "cifar10-midrun"
robust_weight = 0.6
sharpness = 1.0

[[candidate]]
name = "four"
about = "Four steps."
energy = "cifar10-midrun"
classifier = "cifar10-midrun"
chain = { num_steps = 4, step_size = 0.015, temperature = 5e-5, precision = "bfloat16", replicates = 2 }
sigma = 0.05
attacks = ["limpid:PGD,steps=2,grad=full"]

[[candidate]]
name = "alone"
about = "Mixed with itself, alone."
energy = "cifar10-midrun"
classifier = "twice"
transfer_from = "cifar10-midrun"
chain = { num_steps = 0, step_size = 0.015, temperature = 5e-5, replicates = 1 }
"""

ROOT = Path(__file__).parents[2]
ADDED = {"limpid:PGD,steps=2,grad=full"}
CHAIN = Preset(num_steps=2, step_size=0.1, temperature=1.0, replicates=1)
ONE = CHAIN.model_copy(update={"num_steps": 1})


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
    assert set(four.held) == ADDED | {
        "transfer-bare",
        "bpda-pgd",
        "smooth-pgd",
        "smooth-apgd",
        "smooth-apgd-t",
        "square",
    }
    # Nothing random and nothing to replace stands before the classifier alone: its gradients are exact.
    assert set(alone.held) == {"transfer-second", "transfer-bare", "full-pgd", "full-apgd", "full-apgd-t", "square"}
    assert "Exact gradients are blind" not in alone.warnings
    # What transfers from the defence itself is no attack without gradients, which would be a sign of weak ones.
    blind = {
        name: [each.name for each in plan_for(made.candidate, made.setting).attacks if each.knowledge != "white box"]
        for name, made in (("four", four), ("alone", alone))
    }
    assert blind == {"four": ["transfer-bare", "square"], "alone": ["square"]}
    for each in (four, alone):
        assert each.worst.correct <= min(held.correct for held in each.held.values()) <= each.clean.correct
    assert alone.worst.correct == 0
    # A classifier mixed with itself answers as it does alone.
    assert alone.clean == alone.bare == four.bare
    assert set(four.certified) == {"0.25", "0.5"}
    # 1,000 draws at sigma 0.05 cannot certify further than 0.05 * 2.46.
    assert four.certified["0.25"].correct == 0
    assert four.vote is not None
    assert alone.vote is None
    assert (out / "out" / "search.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_refused_is_not_answered_and_what_is_wrong_when_clean_is() -> None:
    found = Evaluation.model_validate_json((REPORTS / "cifar10-certified" / "robustness" / "result.json").read_bytes())
    wrong = sum(each.worst is None for each in found.image_results)
    attacked = [n for n, each in enumerate(found.image_results) if each.worst is not None]
    for n in attacked[:5]:
        worst = found.image_results[n].worst
        assert worst is not None
        refused = worst.model_copy(update={"refused": True})
        found.image_results[n] = found.image_results[n].model_copy(update={"worst": refused})
    made = read_candidates().named("robust-longer-refusing")
    row = row_of(made, Setting(images=found.images), found, 0.1, 1)
    assert wrong > 0
    assert row.worst_answered == share(found.images - 5, found.images)
    assert row.answered == share(found.images, found.images)
    assert right_at_worst(row) == share(row.worst.correct - 5, found.images)


def test_a_finished_row_is_kept_and_another_question_refused(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = out / "out" / "rows" / "four" / "row.json"
    before = path.stat().st_mtime_ns
    assert main(arguments(out)) == 0
    assert path.stat().st_mtime_ns == before
    capsys.readouterr()
    assert main(arguments(out, images=4)) == 2
    assert "belongs to another run" in " ".join(capsys.readouterr().err.split())


def test_the_table_goes_between_the_marks_of_its_page(out: Path, tmp_path: Path) -> None:
    page, (begin, end) = tmp_path / "STRENGTH.md", marks("search")
    page.write_text(f"before\n{begin}old\n{end}after\n")
    rows = [row(out, name) for name in ("four", "alone")]
    rows[0] = rows[0].model_copy(update={"worst": share(1, 2)})
    publish(rows, "search", tmp_path)
    text = page.read_text()
    assert text.startswith(f"before\n{begin}| candidate |")
    assert text.endswith(f"{end}after\n")
    assert "| four |" in text
    assert "**50 [9, 91]**" in text
    assert "old" not in text
    assert Row.model_validate_json((tmp_path / "strength" / "alone.json").read_bytes()) == rows[1]
    page.write_text("no marks")
    with pytest.raises(ResultError, match="expected each of"):
        publish(rows, "search", tmp_path)


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
    zoo = {path.name for path in (ROOT / "models" / "zoo").iterdir()}
    for each in listed.candidates:
        assert {each.energy, each.classifier} <= zoo | listed.parts.keys() | listed.mixed.keys() | {"own"}
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


def test_a_part_that_is_a_classifier_is_an_energy_too(tmp_path: Path) -> None:
    listed = read_candidates()
    parts = Parts(listed, tmp_path, torch.device("cpu"))
    asked = listed.named("robust-longer-10")
    defence = parts.defence(asked.model_copy(update={"energy": "noise"}))
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    within, normalisation = parts.classifier("noise")
    torch.testing.assert_close(defence.energy(images), -within(normalisation(images)).logsumexp(1))
    assert "head.weight" in dict(defence.classifier.named_parameters())
    own = parts.defence(asked.model_copy(update={"energy": "own"}))
    other = -own.classifier(own.normalisation(images)).logsumexp(1)
    torch.testing.assert_close(own.energy(images), other)


def test_cooling_noise_falls_linearly_and_is_divided_among_cores_unchanged() -> None:
    streams = [Stream(("cooling", row)) for row in range(3)]
    like, steps = torch.empty(3, 1, 4, 4), 20  # more than one block of noise
    hot, cooling = ChainNoise(streams), CoolingNoise(ChainNoise(streams), steps)
    for step in (0, 5, 19):
        torch.testing.assert_close(cooling.at(step, like), (1 - step / steps) * hot.at(step, like))
    whole, (first, rest) = cooling.sequence(), cooling.sequence().divide([slice(0, 1), slice(1, 3)])
    for _ in range(steps):
        parts = torch.cat([first(like[:1]), rest(like[1:])])
        assert torch.equal(whole(like), parts)


def test_a_cooled_chain_ends_where_the_cold_one_would_only_when_nothing_is_left_to_cool() -> None:
    """One step is as hot as ever; of two, the second adds half the noise, and the drift stays."""
    energy = LightEnergy(1, 8, 4)
    purified = PurifiedClassifier(energy, nn.Flatten(), Normalisation(mean=(0.5,), std=(0.5,)), CHAIN)
    x, noise = torch.zeros(1, 1, 8, 8), ChainNoise([Stream(("cooled",))])
    assert torch.equal(CoolingPurifier(purified, ONE).run(x, noise), LangevinPurifier(purified, ONE).run(x, noise))
    cooled, plain = CoolingPurifier(purified, CHAIN).run(x, noise), LangevinPurifier(purified, CHAIN).run(x, noise)
    torch.testing.assert_close(plain - cooled, 0.5 * CHAIN.step_size * noise.at(1, x))
    recorded, pull_back = CoolingPurifier(purified, CHAIN).record(x, noise, FULL)
    assert torch.equal(recorded, cooled)
    assert pull_back(torch.ones_like(x)).shape == x.shape  # the replay met every stored state, to the bit


def test_bundles_rows_are_their_reports_and_no_other_s(tmp_path: Path) -> None:
    rows = {each.candidate.name: each for each in bundle_rows(REPORTS, torch.device("cpu"))}
    result = json.loads((REPORTS / "cifar10-midrun" / "robustness" / "result.json").read_text())
    row = rows["cifar10-midrun"]
    assert row.worst.model_dump() == result["worst_case"]
    assert row.commit == result["commit"]
    assert result["command"] in row.candidate.about
    assert "digits-midrun" not in rows
    result["preset"]["num_steps"] += 1
    folder = tmp_path / "cifar10-midrun" / "robustness"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))
    with pytest.raises(ResultError, match="measured on another bundle than cifar10-midrun"):
        bundle_rows(tmp_path, torch.device("cpu"))


def test_mixtures_are_counted_from_one_attack(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Mixed with itself a classifier is as right as alone; and with so little of it no lead is enough."""
    shipped = str(ROOT / "models" / "zoo" / "cifar10-midrun")
    given = ["--robust-weight", "0.51", "--sharpness", "1", "--images", "4", "--device", "cpu"]
    assert main(["mixing", shipped, shipped, *given]) == 0
    rows = [re.findall(r"[\d.]+", line) for line in capsys.readouterr().out.splitlines() if "%" in line]
    (_, clean, _), (weight, _, mixed, held) = rows
    assert (weight, mixed, held) == ("0.51", clean, "0.0")


def test_what_a_part_began_from_counts_as_spent_on_it() -> None:
    robust, longer = (read_metrics(KEPT / name)[-1] for name in ("robust", "robust-longer"))
    assert spent(KEPT / "robust-longer") == (
        robust["update"] + longer["update"],
        robust["cpu_seconds"] + longer["cpu_seconds"],
    )
    shipped = spent(ROOT / "models" / "zoo" / "cifar10-midrun")
    noise = read_metrics(KEPT / "noise")[-1]
    assert spent(KEPT / "noise") == (shipped[0] + noise["update"], shipped[1] + noise["cpu_seconds"])
