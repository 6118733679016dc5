"""Suspicion: exact on clean images, cautious about ties, and only for the bundle it was measured on."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.__main__ import main
from models.bundle import Bundle, load_bundle, read_manifest
from models.calibration import Calibration, Origin, Reference, Signals, fit_calibration, measure_signals
from models.data import ImageDataset
from models.errors import BundleError
from models.evaluation.calibrate import signals_of
from models.export import write_manifest
from models.noise import SeededNoise
from models.pixels import from_uint8
from models.purifier import Preset, replicate
from tests.conftest import ZOO

CPU = torch.device("cpu")
PRESET = Preset(num_steps=4, step_size=0.06, temperature=1e-3, replicates=3)
ORIGIN = Origin(preset=PRESET, weights="0" * 64, data="digits", first=0, images=60, seed=0)


def random_signals(count: int, seed: int = 0) -> Signals:
    """Correlated and continuous, as `movement` and `energy_drop` are, and one with few values."""
    noise = torch.randn(3, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    votes = (noise[0] * 1.5).abs().floor().clamp(max=4) / 4
    return Signals(votes, 3 + noise[1], noise[1] + 2 * noise[2])


def only_movement(values: Tensor) -> Signals:
    return Signals(torch.zeros_like(values), values, torch.zeros_like(values))


def left_out(calibration: Calibration, signals: Signals) -> list[float]:
    """The suspicion of each image that gave a score, with the scores of the others."""
    found = []
    for row, score in enumerate(calibration.reference.scores(signals).tolist()):
        others = list(calibration.scores)
        others.remove(score)
        without = calibration.model_copy(update={"scores": tuple(others)})
        found += without.suspicion(Signals(*(values[row : row + 1] for values in signals))).tolist()
    return found


def test_a_rank_is_the_share_below_interpolated_and_still_grows_beyond() -> None:
    reference = Reference(disagreement=(0.0,), movement=(1.0, 2.0, 2.0, 4.0), energy_drop=(0.0,))
    values = torch.tensor([0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 7.0], dtype=torch.float64)
    expected = [0.0, 0.0, 0.5 / 4, 1 / 4, 2.5 / 4, 3 / 4, 3 / 4 + 3 / 6]
    assert reference.scores(only_movement(values)).tolist() == expected


def test_the_most_unusual_signal_decides() -> None:
    ascending = (0.0, 1.0, 2.0, 3.0)
    reference = Reference(disagreement=ascending, movement=ascending, energy_drop=ascending)
    rows = torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, 1.0], [-9.0, -9.0, 1.5]], dtype=torch.float64)
    assert reference.scores(Signals(*rows.T)).tolist() == [3 / 4, 2 / 4, 1.5 / 4]


def test_without_ties_clean_images_are_uniform_exactly() -> None:
    """Each of 40 scored images in turn against the other 39: every value of 0/40, ..., 39/40 once."""
    signals = random_signals(50)._replace(disagreement=torch.zeros(50))
    signals.movement[0] = -9.0  # a reference image below all others, so that none ties at rank 0
    calibration = fit_calibration(signals, ORIGIN)
    assert (len(calibration.reference.movement), len(calibration.scores)) == (10, 40)
    assert len(set(calibration.scores)) == 40
    scored = torch.arange(50) % 5 != 0
    found = left_out(calibration, Signals(*(values[scored] for values in signals)))
    assert sorted(found) == [count / 40 for count in range(40)]


def test_ties_only_lower_suspicion() -> None:
    """Disagreement alone has five values: at every threshold q, at most 1 - q of the clean images reach it."""
    votes = random_signals(250).disagreement
    signals = Signals(votes, torch.zeros(250), torch.zeros(250))
    calibration = fit_calibration(signals, ORIGIN)
    scored = votes[torch.arange(250) % 5 != 0]
    found = left_out(calibration, Signals(scored, torch.zeros(200), torch.zeros(200)))
    assert len(set(found)) == len(set(scored.tolist())) == 5
    for q in set(found):
        assert sum(value >= q for value in found) <= (1 - q) * 200 + 1e-9
    # An image like the largest group is as unusual as all of it: the share of images below, and no more.
    below = int((scored < votes.max()).sum())
    assert max(found) == pytest.approx(below / 200)


def test_suspicion_is_the_share_of_scores_below() -> None:
    """Movement 0, ..., 74: every fifth is the reference, so an image at 50.5 exceeds 40 of 60 scores."""
    calibration = fit_calibration(only_movement(torch.arange(75.0)), ORIGIN)
    found = calibration.suspicion(only_movement(torch.tensor([-5.0, 50.5, 1e9])))
    assert found.tolist() == pytest.approx([0.0, 40 / 61, 60 / 61])
    assert calibration.largest == found[2]


def test_a_larger_signal_is_never_less_suspicious() -> None:
    calibration = fit_calibration(random_signals(300), ORIGIN)
    images = random_signals(500, seed=1)
    before = calibration.suspicion(images)
    for position in range(3):
        rises = torch.rand(500, generator=torch.Generator().manual_seed(position))
        raised = [values + rises * (row == position) for row, values in enumerate(images)]
        after = calibration.suspicion(Signals(*raised))
        assert (after >= before).all()
        assert (after > before).any()
    assert before.max() <= calibration.largest < 1.0


def test_the_scale_stays_small_with_many_images() -> None:
    calibration = fit_calibration(random_signals(2000), ORIGIN)
    assert (len(calibration.reference.disagreement), len(calibration.scores)) == (200, 1800)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_signal_that_is_not_finite_is_refused(wrong: float) -> None:
    calibration = fit_calibration(random_signals(60), ORIGIN)
    with pytest.raises(ValueError, match="expected finite signals, got"):
        calibration.suspicion(only_movement(torch.tensor([wrong])))


def test_signals_are_means_over_replicates() -> None:
    """Two replicates of two images: votes 1 and 0 (by the mean, 1), and twice 0; moves of 2 and 4 in [-1, 1] units."""
    images = torch.zeros(2, 1, 2, 2)
    purified = torch.stack([images + 1.0, images + 2.0])
    logits = torch.tensor([[[0.0, 9.0], [1.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]])
    signals = measure_signals(images, purified, logits, torch.tensor([[1.0, 2.0], [3.0, -2.0]]))
    assert signals.disagreement.tolist() == [0.5, 0.0]
    assert signals.movement.tolist() == [1.5, 1.5]  # (2 + 4) / 2, halved to [0, 1] units
    assert signals.energy_drop.tolist() == [2.0, 0.0]


def test_the_energy_drop_ends_before_the_last_step(digits_bundle: Bundle, digits_test: ImageDataset) -> None:
    """The same chains one step shorter end where the last step began."""
    defence, images = digits_bundle.defence, from_uint8(digits_test.images[:10])
    found = signals_of(defence, images, PRESET, seed=3)
    shorter = PRESET.model_copy(update={"num_steps": PRESET.num_steps - 1})
    starts = replicate(images, 3)
    noise = SeededNoise(torch.Generator().manual_seed(3))
    with torch.no_grad():
        fallen = defence.energy(starts) - defence.energy(defence.purify(starts, shorter, noise))
    assert torch.allclose(found.energy_drop, fallen.view(3, 10).mean(0), atol=1e-5)
    none = PRESET.model_copy(update={"num_steps": 0})
    assert all(not values.any() for values in signals_of(defence, images, none, seed=3))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ZOO / "digits-midrun", tmp_path / "bundle"))


def test_a_calibration_survives_the_manifest_and_renames_nothing(copy: Path) -> None:
    manifest = read_manifest(copy)
    origin = ORIGIN.model_copy(update={"preset": manifest.presets["fast"], "weights": manifest.weights_digest})
    calibration = fit_calibration(random_signals(60), origin)
    write_manifest(copy, manifest.model_copy(update={"calibration": {"fast": calibration}}))
    again = load_bundle(copy, CPU).manifest
    assert again.calibration == {"fast": calibration}
    assert (again.digest, again.weights_digest) == (manifest.digest, manifest.weights_digest)
    images = random_signals(100, seed=2)
    assert torch.equal(again.calibration["fast"].suspicion(images), calibration.suspicion(images))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["presets"]["fast"].update(num_steps=21), r"calibration.fast was made with .*num_steps=20.*=21"),
        (lambda m: m["class_names"].__setitem__(0, "nought"), r"calibration.fast was made with weights"),
        (lambda m: m["calibration"].update(other=m["calibration"]["fast"]), r"calibration.other .*preset \(None\)"),
        (lambda m: m["calibration"]["fast"]["scores"].reverse(), r"calibration.fast.scores: .*ascending order"),
        (lambda m: m["calibration"]["fast"].update(scores=[]), r"calibration.fast.scores: .*at least 1"),
    ],
)
def test_a_calibration_of_another_defence_is_refused(
    copy: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    change(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=f"(?s){message}"):
        load_bundle(copy, CPU)


def test_calibrating_digits_from_the_command_line(
    copy: Path, digits_test: ImageDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fresh clean images are suspected as seldom as they should be, noisy ones nearly all."""
    shipped = read_manifest(copy)
    write_manifest(copy, shipped.model_copy(update={"calibration": {}}))
    command = ["evaluate", str(copy), "--calibrate", "--preset", "fast", "--device", "cpu"]
    assert main([*command, "--images", "24"]) == 2
    assert "at least 25 images, got 24" in capsys.readouterr().err
    assert main([*command, "--first", "100", "--images", "200"]) == 0
    assert "suspicion up to 0.994" in capsys.readouterr().out

    bundle = load_bundle(copy, CPU)
    assert list(bundle.manifest.calibration) == ["fast"]
    assert bundle.manifest.digest == shipped.digest
    assert "digits test images 100 to 299 | 160 | 0.994" in (copy / "MODEL_CARD.md").read_text()

    calibration, preset = bundle.manifest.calibration["fast"], bundle.manifest.presets["fast"]
    images = from_uint8(digits_test.images[:100])
    clean = calibration.suspicion(signals_of(bundle.defence, images, preset, seed=1))
    # 10 % of 100 images, give or take three standard deviations of both samples together.
    spread = 3 * math.sqrt(0.1 * 0.9 * (1 / 100 + 1 / 160))
    assert float((clean > 0.9).double().mean()) == pytest.approx(0.1, abs=spread)
    noisy = images + 0.5 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    attacked = calibration.suspicion(signals_of(bundle.defence, noisy, preset, seed=1))
    assert float((attacked > 0.9).double().mean()) > 0.9


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_every_preset_that_ships_is_calibrated(name: str, request: pytest.FixtureRequest) -> None:
    manifest = request.getfixturevalue(f"{name}_bundle").manifest
    assert manifest.calibration.keys() == manifest.presets.keys()


def test_no_image_that_a_report_counts_calibrates_the_default_bundle(cifar10_bundle: Bundle) -> None:
    manifest = cifar10_bundle.manifest
    for calibration in manifest.calibration.values():
        origin = calibration.origin
        assert (origin.data, origin.images) == ("cifar10", 850)
        for result in (*manifest.measured.values(), *manifest.beside.values()):
            assert origin.first >= result["first"] + result["images"]


def test_ood_counts_the_clean_energies_that_lie_nearer_on_either_side() -> None:
    """U of 0, ..., 24: the reference 0, 5, 10, 15, 20 has mean 10, the others lie 1 to 14 away."""
    energies = torch.arange(25.0)
    typicality = fit_calibration(only_movement(energies), ORIGIN, energies).typicality
    assert typicality is not None
    assert typicality.mean == 10.0
    assert len(typicality.distances) == 20
    found = typicality.ood(torch.tensor([10.0, 7.5, 12.5, -1e6, 1e6]))
    assert found.tolist() == pytest.approx([0.0, 4 / 21, 4 / 21, 20 / 21, 20 / 21])  # 8, 9, 11 and 12 are nearer
    with pytest.raises(ValueError, match="expected finite signals"):
        typicality.ood(torch.tensor([math.nan]))


def test_ood_of_clean_images_is_uniform() -> None:
    """Each of 160 in turn against the other 159: every place once, however skewed the energies are."""
    energies = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64).exp()
    typicality = fit_calibration(only_movement(energies), ORIGIN, energies).typicality
    assert typicality is not None
    distances = typicality.distances
    without = [distances[:row] + distances[row + 1 :] for row in range(160)]
    found = [
        float(typicality.model_copy(update={"distances": others}).ood(torch.tensor([typicality.mean + own]))[0])
        for own, others in zip(distances, without, strict=True)
    ]
    assert sorted(found) == pytest.approx([count / 160 for count in range(160)])


def test_the_shipped_digits_answer_ood_with_the_energy_of_the_image_as_it_came(
    digits_bundle: Bundle, digits_test: ImageDataset
) -> None:
    """A tenth of the images that calibrated nothing exceed 0.9; black is more likely than any of them, and does too."""
    calibration = digits_bundle.manifest.calibration["balanced"]
    assert calibration.typicality is not None
    with torch.no_grad():
        energies = digits_bundle.defence.energy(from_uint8(digits_test.images))
        black = digits_bundle.defence.energy(torch.full((1, 1, 8, 8), -1.0))
    usual = calibration.typicality.ood(energies[:100])
    spread = 3 * math.sqrt(0.1 * 0.9 * (1 / 100 + 1 / 160))
    assert float((usual > 0.9).double().mean()) == pytest.approx(0.1, abs=spread)
    assert calibration.typicality.mean == pytest.approx(float(energies[100::5].mean()), abs=1e-3)
    assert black < energies.min()
    assert calibration.typicality.ood(black) > 0.9
