"""Detection against a quadratic energy whose chain is known, and attacked digits."""

import pytest
import torch
from torch import Tensor, nn

from attacks_eval.defence import Defence
from attacks_eval.detection import detection_rows, trace
from attacks_eval.errors import QuestionError
from attacks_eval.pgd import PGD
from attacks_eval.protocol import craft
from attacks_eval.purifiers import AutogradPurifier, LangevinPurifier
from attacks_eval.slots import Task
from attacks_eval.threat_model import ThreatModel
from models.bundle import Bundle
from models.data import ImageDataset
from models.pixels import Normalisation, distance_l2, distance_linf, from_uint8, from_unit, to_unit
from models.purifier import Preset, PurifiedClassifier
from models.streams import ChainNoise, Stream

QUANTITIES = {"energy", "energy_drop", "distance_l2", "distance_linf", "disagreement", "margin_spread"}


def streams(count: int, name: str = "trace") -> list[Stream]:
    return [Stream((name, row)) for row in range(count)]


def digits(dataset: ImageDataset, count: int) -> tuple[Tensor, list[Task]]:
    images = to_unit(from_uint8(dataset.images[:count])).clamp(0, 1)
    return images, [Task(row, images[row], int(dataset.labels[row])) for row in range(count)]


@pytest.fixture(scope="module")
def fast(digits_bundle: Bundle) -> Defence:
    return Defence.of(digits_bundle.defence, digits_bundle.manifest.preset("fast"))


class Quadratic(nn.Module):
    """U(x) = |x|^2 / 2."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).square().sum(1) / 2


def test_energy_drop_of_a_quadratic_energy_is_its_expectation() -> None:
    """E|x_K|^2 = a^2K |x_0|^2 + d s^2 (1 - a^2K) / (1 - a^2), a = 1 - s^2 / 2T."""
    preset = Preset(num_steps=12, step_size=0.4, temperature=0.5, replicates=1)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    energy = PurifiedClassifier(Quadratic(), classifier, Normalisation(mean=(0.0,), std=(1.0,)), preset)
    images = torch.stack([torch.full((3, 4, 4), level) for level in (0.0, 0.3, 0.5, 1.0)])
    found = trace(Defence.of(energy, preset), images, streams(4), 256)
    start = from_unit(images).flatten(1).square().sum(1)
    rate = (1 - preset.drift_rate) ** 2
    decayed = rate**preset.num_steps
    variance = preset.step_size**2 * (1 - decayed) / (1 - rate)
    expected = (start - (decayed * start + 48 * variance)) / 2
    # |x_K|^2 / 2 has variance (d v^2 / 2 + v |mean|^2), v the variance of one coordinate.
    error = ((48 * variance**2 / 2 + variance * decayed * start) / 256).sqrt()
    assert torch.allclose(found["energy"], start / 2)
    assert ((found["energy_drop"] - expected).abs() < 4 * error).all()
    assert (expected.abs() > 20 * error).all(), "the comparison must be able to fail"


def test_quantities_are_those_of_the_chains_that_the_defence_runs(
    fast: Defence, digits_bundle: Bundle, digits_test: ImageDataset
) -> None:
    images, _ = digits(digits_test, 5)
    found = trace(fast, images, streams(5), 3)
    assert set(found) == QUANTITIES
    x, energy = from_unit(images), digits_bundle.defence.energy
    noises = [ChainNoise([stream.child("replicate", r) for stream in streams(5)]) for r in range(3)]
    purified = [fast.purifier.run(x, noise) for noise in noises]
    logits = torch.stack([fast.classify(each) for each in purified])
    best = logits.topk(2).values
    votes = (logits.argmax(2) == logits.mean(0).argmax(1)).float().mean(0)
    expected = {
        "energy": energy(x),
        "energy_drop": energy(x) - torch.stack([energy(each) for each in purified]).mean(0),
        "distance_l2": torch.stack([distance_l2(each, x) for each in purified]).mean(0),
        "distance_linf": torch.stack([distance_linf(each, x) for each in purified]).mean(0),
        "disagreement": 1 - votes,
        "margin_spread": (best[..., 0] - best[..., 1]).std(0, correction=0),
    }
    for name, values in expected.items():
        assert torch.allclose(found[name], values, rtol=1e-4, atol=1e-5), name
    assert torch.equal(fast.replicate_logits(images, streams(5), 0, 3).mean(0).argmax(1), logits.mean(0).argmax(1))


def test_an_images_values_do_not_depend_on_its_neighbours(fast: Defence, digits_test: ImageDataset) -> None:
    images, _ = digits(digits_test, 30)
    own = streams(30)
    together = trace(fast, images, own, 4)
    backwards = trace(fast, images.flip(0), own[::-1], 4)
    alone = [trace(fast, images[row : row + 1], own[row : row + 1], 4) for row in (0, 17, 29)]
    for name, values in together.items():
        assert values.shape == (30,)
        assert torch.equal(values, backwards[name].flip(0)), name
        assert torch.equal(values[[0, 17, 29]], torch.cat([each[name] for each in alone])), name
    other = trace(fast, images, streams(30, "other"), 4)
    assert torch.equal(other["energy"], together["energy"])
    assert not torch.equal(other["energy_drop"], together["energy_drop"])


def test_one_replicate_agrees_with_itself(fast: Defence, digits_test: ImageDataset) -> None:
    images, _ = digits(digits_test, 3)
    found = trace(fast, images, streams(3), 1)
    assert not found["disagreement"].any()
    assert not found["margin_spread"].any()


def test_a_trace_is_paid_for_and_leaves_the_defence_as_it_was(fast: Defence, digits_test: ImageDataset) -> None:
    images, _ = digits(digits_test, 3)
    before, purifier = fast.cost.image_steps, fast.purifier
    trace(fast, images, streams(3), 2)
    assert fast.cost.image_steps - before == 3 * 2 * purifier.num_steps
    assert fast.purifier is purifier
    assert isinstance(purifier, LangevinPurifier)


def test_a_defence_without_an_energy_is_refused(fast: Defence, digits_test: ImageDataset) -> None:
    images, _ = digits(digits_test, 2)
    for defence in (fast.bare(), Defence(AutogradPurifier(lambda x, noise: x), fast.classify)):
        with pytest.raises(QuestionError, match="has none"):
            trace(defence, images, streams(2), 2)
    with pytest.raises(QuestionError, match="at least 1 replicate"):
        trace(fast, images, streams(2), 0)


def test_attacked_digits_are_told_from_clean_ones_by_their_energy(fast: Defence, digits_test: ImageDataset) -> None:
    """Measured: AUROC 0.99 by the energy and its drop, 0.98 by the distance; nothing tells clean from clean."""
    images, tasks = digits(digits_test, 120)
    made = craft(fast.bare(), PGD(steps=10, attack_step=8), tasks[:60], ThreatModel(budget=40), Stream((0,)))
    attacked = trace(fast, torch.stack([image for _, image in made]), streams(60, "attacked"), 4)
    clean = trace(fast, images[60:], streams(60, "clean"), 4)
    rows = {row.quantity: row for row in detection_rows(clean, attacked, "transfer-pgd", attacker_knows=False)}
    assert set(rows) == QUANTITIES
    assert rows["energy"].auroc > 0.95
    assert rows["energy_drop"].auroc > 0.95
    assert rows["distance_l2"].auroc > 0.85
    assert rows["energy_drop"].tpr > 0.8
    assert {(row.attack, row.attacker_knows, row.clean_images, row.attacked_images) for row in rows.values()} == {
        ("transfer-pgd", False, 60, 60)
    }
    # The clean images of both halves: the standard deviation of an AUROC by chance is 0.053 here.
    control = trace(fast, images[:60], streams(60, "control"), 4)
    assert all(abs(row.auroc - 0.5) < 0.2 for row in detection_rows(clean, control, "none", attacker_knows=False))


def test_traces_of_other_quantities_are_refused() -> None:
    with pytest.raises(ValueError, match="other quantities"):
        detection_rows({"energy": torch.ones(2)}, {"distance_l2": torch.ones(2)}, "x", attacker_knows=True)
