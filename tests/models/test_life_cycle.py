"""The life cycle of one network: its curves start where they should, can be stopped, and say the same again."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.__main__ import main
from models.data import load_dataset
from models.errors import CheckpointError, ConfigError, DataError
from models.evaluation.chain_starts import uniform_start
from models.evaluation.classifier_features import load_classifier_features
from models.evaluation.density_model import DensityModel
from models.evaluation.life_cycle import LifeCycle, Measuring, Scorer, draw_real, measure, run_both
from models.evaluation.life_cycle_models import ENERGIES, own_start, stage_recipes
from models.evaluation.long_chains import Snapshot, read_snapshot, snapshot_path, spent_seconds
from models.langevin import LangevinConfig
from models.pixels import from_uint8
from models.reproduce.experiments import run_experiment
from models.reproduce.life_cycle import remake
from models.reproduce.page import publish
from models.streams import Stream
from models.training.frozen_parts import frozen, starting_generator
from models.training.program import train_recipe
from models.training.recipe import load_recipe

CPU = torch.device("cpu")
SAMPLER = LangevinConfig(num_steps=10, step_size=0.3, temperature=0.25)
SECTIONS = {"short": "short_run", "mid": "mid_run", "prior": "short_run", "long": "long_run"}
TINY = [
    *(f"{stage}.network.arguments.width=8" for stage in ENERGIES),
    *(f"{stage}.sampler.num_steps=4" for stage in ENERGIES),
    *(f"{stage}.{section}.updates=8" for stage, section in SECTIONS.items()),
    *(f"{stage}.{section}.bank_size=64" for stage, section in SECTIONS.items()),
    "long.long_run.burn_in_size=64",
    "long.long_run.burn_in_updates=3",
    "classifier.training.epochs=1",
]


def life_cycle(folder: Path, *more: str) -> str:
    """The JSON of a tiny life cycle."""
    command = ["life-cycle", "--out", str(folder), "--device", "cpu", "--chains", "20", "--block", "20"]
    overrides = [word for each in TINY for word in ("--set", each)]
    assert main([*command, "--features", "classifier", *overrides, *more]) == 0
    return (folder / "life_cycle.json").read_text()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("life")
    return folder, life_cycle(folder, "--steps", "100", "300", "1000")


def digest(states: Tensor, tmp_path: Path) -> str:
    """What a point says of such states."""
    scorer = Scorer([], draw_real(load_dataset("digits", "train"), 20, 0))
    return measure(Snapshot(0, states, torch.zeros(len(states))), torch.arange(3.0), scorer, tmp_path / "p.json").digest


def test_the_result_holds_both_curves_of_each_model_beside_one_floor(tiny: tuple[Path, str]) -> None:
    folder, text = tiny
    result = LifeCycle.model_validate_json(text)
    assert [(curve.model, curve.start) for curve in result.curves] == [
        *(("short", "generator"), ("short", "noise")),
        *(("mid", "data"), ("mid", "noise")),
        *(("long", "generator"), ("long", "noise")),
    ]
    (network,) = result.features
    for curve in result.curves:
        assert [point.step for point in curve.points] == [0, 100, 300, 1000]
        for point in curve.points:
            names = [f"{metric}-{network}" for metric in ("FD", "KID", "Precision", "Recall")]
            assert [score.name for score in point.scores] == names
            assert [score.floor for score in point.scores] == [score.floor for score in result.noisy_data]
            assert (point.energies.count, point.scores[0].count) == (20, 20)
    lifetimes = {model.name: model.lifetime for model in result.models}
    assert 4 <= lifetimes["short"] <= 4 * 3  # at most three rounds of four steps: two, and the one that ends them
    assert [model.regime for model in result.models] == ["short-run", "mid-run", "long-run"]
    pictures = {"life_cycle.png", "chains.png", "grids/mid-from-data-00000300.png"}
    assert all((folder / name).stat().st_size > 1000 for name in pictures)
    assert all((folder / f"{stage}.safetensors").exists() for stage in ENERGIES)


def test_curves_start_where_learning_started_its_chains_or_from_the_same_noise(
    tiny: tuple[Path, str], tmp_path: Path
) -> None:
    folder, text = tiny
    starts = {(curve["model"], curve["start"]): curve["points"][0] for curve in json.loads(text)["curves"]}
    data = load_dataset("digits", "train")
    rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[40:60]
    assert starts["mid", "data"]["digest"] == digest(from_uint8(data.images[rows]), tmp_path)

    generator = frozen(starting_generator(folder / "short" / "checkpoint.pt"), CPU)
    for model in ("short", "long"):
        latents = Stream((0, "life cycle", model)).normal((20, 32))
        assert starts[model, "generator"]["digest"] == digest(generator(latents), tmp_path)

    noise = uniform_start((20, 1, 8, 8), Stream((0, "life cycle", "noise")), CPU)
    assert {starts[model, "noise"]["digest"] for model in ("short", "mid", "long")} == {digest(noise, tmp_path)}
    # As far from digits as it looks, and images of the dataset are not.
    frechet = {key: point["scores"][0]["samples"]["value"] for key, point in starts.items()}
    assert frechet["mid", "noise"] > 2 * frechet["mid", "data"]


def test_a_life_cycle_that_was_cut_short_continues_to_the_same_result(tiny: tuple[Path, str]) -> None:
    """As after a kill while long-run energies learned, then one between two lengths of chains, one between points."""
    folder, text = tiny
    before = (folder / "mid" / "checkpoint.pt").stat().st_mtime_ns
    for name in ("long", "chains-long", "chains-mid", "points"):
        shutil.rmtree(folder / name)
    life_cycle(folder, "--steps", "100", "300")
    kept = (folder / "points" / "mid-from-data-00000300.json").stat().st_mtime_ns
    assert life_cycle(folder, "--steps", "100", "300", "1000") == text
    assert (folder / "points" / "mid-from-data-00000300.json").stat().st_mtime_ns == kept
    assert (folder / "mid" / "checkpoint.pt").stat().st_mtime_ns == before


def test_the_experiment_publishes_what_was_measured(tiny: tuple[Path, str], tmp_path: Path) -> None:
    folder, text = tiny
    measuring = Measuring(chains=20, steps=(100, 300, 1000), block=20)
    result = run_experiment(
        "life-cycle",
        partial(remake, measuring=measuring, features=("classifier",), overrides=TINY),
        folder,
        CPU,
        "command",
    )
    points = {(curve["model"], curve["start"]): curve["points"] for curve in json.loads(text)["curves"]}
    name = points["mid", "data"][0]["scores"][0]["name"]
    numbers = {number.what: number.ours for number in result.numbers}
    # Chains of eight steps in learning: of those that are looked at, 100 is nearest.
    for step, place in (("100", 1), ("1,000", 3)):
        measured = points["mid", "data"][place]["scores"][0]["samples"]["value"]
        assert numbers[f"mid-run, from data, {step} steps: {name}"] == round(measured, 1)
    spent = [spent_seconds(folder / f"chains-{model}") for model in ("short", "mid", "long")]
    assert min(spent) > 0
    assert result.cpu_hours == pytest.approx(sum(spent) / 3600, abs=0.05)
    publish(folder, tmp_path)
    assert (tmp_path / "results" / "life-cycle" / "life_cycle.json").read_text() == text
    published = tmp_path / "results" / "life-cycle" / "mid.safetensors"
    assert published.read_bytes() == (folder / "mid.safetensors").read_bytes()


def test_a_point_is_of_its_snapshot(tiny: tuple[Path, str]) -> None:
    """The second half of the file's chains is those from noise."""
    folder, text = tiny
    curve = next(each for each in json.loads(text)["curves"] if (each["model"], each["start"]) == ("long", "noise"))
    snapshot = read_snapshot(snapshot_path(folder / "chains-long", 1000))
    assert curve["points"][3]["energies"]["mean"] == pytest.approx(float(snapshot.energies[20:].mean()), rel=1e-6)
    network = load_classifier_features(folder / "classifier" / "checkpoint.pt", CPU)
    scores = Scorer([network], draw_real(load_dataset("digits", "train"), 20, 0))(snapshot.states[20:])
    assert [score.model_dump(mode="json") for score in scores] == curve["points"][3]["scores"]


def test_stages_share_all_but_starts_and_lives(tmp_path: Path) -> None:
    for data in ("digits", "mnist"):
        recipes = stage_recipes(data, tmp_path, ["long.seed=7"]).energies
        assert [recipe.regime for recipe in recipes.values()] == ["short-run", "mid-run", "short-run", "long-run"]
        assert all(recipe.warm_start.updates == 0 for recipe in recipes.values())
        assert recipes["long"].seed == 7
        assert recipes["long"].prior is not None
        assert recipes["long"].prior.energy == tmp_path / "prior" / "checkpoint.pt"
    with pytest.raises(ConfigError, match=r"mid.data_noise: expected that of short, 0.06, got 0.1"):
        stage_recipes("digits", tmp_path, ["mid.mid_run.data_noise=0.1"])
    with pytest.raises(ConfigError, match=r"'middle.seed=1': expected STAGE.KEY=VALUE, STAGE one of classifier, short"):
        stage_recipes("digits", tmp_path, ["middle.seed=1"])


def test_a_recipe_without_bank_or_generator_starts_from_noise(tmp_path: Path) -> None:
    recipe = stage_recipes("digits", tmp_path, ["long.initialiser={ kind = 'noise' }"]).energies["long"]
    kind, start = own_start(recipe, tmp_path / "none.pt", torch.zeros(50, 1, 8, 8), Stream((1,)), CPU)
    assert (kind, start.shape) == ("noise", (50, 1, 8, 8))
    assert float(start.var()) == pytest.approx(1 / 3, rel=0.1)


class Quartic(nn.Module):
    """f(x) = sign |x|^4 / 100."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, x: Tensor) -> Tensor:
        return self.sign * x.flatten(1).pow(4).sum(1) / 100


def test_an_energy_without_bound_ends_its_curves_with_the_reason(tmp_path: Path) -> None:
    measuring = Measuring(chains=20, steps=(10, 1000), block=10)
    starts = {"data": torch.zeros(20, 1, 4, 4), "noise": torch.ones(20, 1, 4, 4)}
    for sign, last in ((1.0, 1000), (-1.0, 10)):
        model = DensityModel(((Quartic(sign), 0.25),), None, SAMPLER, "digits", f"{sign}")
        snapshots, diverged = run_both(model, starts, measuring, tmp_path / f"{sign}")
        assert {name: [each.step for each in row] for name, row in snapshots.items()} == {
            "data": [0, *((10, 1000) if last == 1000 else (10,))],
            "noise": [0, *((10, 1000) if last == 1000 else (10,))],
        }
        assert torch.equal(snapshots["noise"][0].states, starts["noise"])
        assert float(snapshots["noise"][0].energies[0]) == pytest.approx(sign * 16 / 100 / 0.25)
        assert (diverged is None) == (sign > 0)
    assert diverged is not None
    assert "shorten its step" in diverged


def test_points_are_kept_for_the_same_question_only(tmp_path: Path) -> None:
    scorer = Scorer([], draw_real(load_dataset("digits", "train"), 20, 0))
    path, snapshot = tmp_path / "point.json", Snapshot(10, torch.zeros(20, 1, 8, 8), torch.arange(20.0))
    first = measure(snapshot, torch.arange(20.0), scorer, path)
    assert (first.against.gap, first.against.auc, first.outside) == (0.0, 0.5, 0.0)
    assert measure(snapshot, torch.arange(20.0), scorer, path) == first
    assert measure(snapshot, torch.arange(20.0) + 5, scorer, path).against.gap == 5.0
    path.write_text("{}")
    with pytest.raises(CheckpointError, match=r"point.json does not hold a point"):
        measure(snapshot, torch.arange(20.0), scorer, path)


def test_three_sets_of_real_images_are_disjoint() -> None:
    data = load_dataset("digits", "train")
    real = draw_real(data, 499, 3)
    sets = [{image.numpy().tobytes() for image in part} for part in (real.reference, real.held_out, real.starts)]
    assert [len(part) for part in (real.reference, real.held_out, real.starts)] == [499] * 3
    # The dataset repeats few pictures, if any.
    assert len(sets[0] & sets[1]) + len(sets[0] & sets[2]) + len(sets[1] & sets[2]) <= 3
    with pytest.raises(DataError, match=r"1497 training images; 500 chains need 1500"):
        draw_real(data, 500, 3)


def test_classifier_features_are_what_its_head_reads(tmp_path: Path) -> None:
    train_recipe(load_recipe("digits_classifier", ["training.epochs=1"]), tmp_path, False, False, CPU)
    network = load_classifier_features(tmp_path / "checkpoint.pt", CPU)
    images = load_dataset("digits", "test").images[:30]
    features = network.features(images)
    assert features.shape == (30, 64)
    classifier, normalisation = network.module.network, network.module._normalisation
    with torch.no_grad():
        logits = classifier(normalisation(from_uint8(images)))
    assert torch.allclose(classifier.head(features) * classifier.logit_scale, logits, atol=1e-5)
    assert network.name == f"digits-{network.identity[-64:-56]}"
    assert network.frechet_name == f"FD-{network.name}"
