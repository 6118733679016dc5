"""Sampling procedures on energies |x - c|^2 / 2, whose chains are known to come to c."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.banks import Fresh
from models.composed import Conditional
from models.gradients import Energy
from models.langevin import LangevinConfig
from models.tasks.generation import Ensemble, Round, generate, walk

CENTRES = torch.tensor([-0.6, 0.1, 0.9])
STILL = LangevinConfig(num_steps=30, step_size=1e-4, temperature=2e-8)
"""The drift is a quarter of the way to the centre a step, next to no noise: a call leaves (3/4)^30 = 2e-4 of it."""


def member(shift: float = 0.0) -> Callable[[Tensor | None], Energy]:
    """U(x | y) = |x - (c[y] + shift)|^2 / 2."""

    def energy(x: Tensor, labels: Tensor) -> Tensor:
        return (x - (CENTRES[labels] + shift).view(-1, 1, 1, 1)).flatten(1).square().sum(1) / 2

    def conditioned(labels: Tensor | None) -> Energy:
        assert labels is not None
        return Conditional(energy, labels)

    return conditioned


class CountedSource:
    """Chains at 5, far from every centre, with labels in turn; remembers how many it gave."""

    def __init__(self) -> None:
        self.given: list[int] = []

    def __call__(self, count: int) -> Fresh:
        self.given.append(count)
        return Fresh(torch.full((count, 1, 2, 2), 5.0), labels=torch.arange(count) % 3)


def run(ensemble: Ensemble, config: Round, sampler: LangevinConfig = STILL) -> tuple[Fresh, CountedSource]:
    source = CountedSource()
    return generate(ensemble, source, sampler, config, torch.Generator().manual_seed(0)), source


def test_chains_come_to_the_centre_of_their_own_class() -> None:
    made, source = run(Ensemble([member()]), Round(bank_size=60, batch_size=30, calls=12))
    assert made.labels is not None
    moved = made.images.flatten(1).mean(1)
    assert torch.allclose(moved, CENTRES[made.labels], atol=5e-3)
    assert source.given[0] == 60


def test_an_ensemble_samples_the_mean_or_each_in_turn() -> None:
    """The mean of quadratics is one about the mean of their centres; in turn, the last call decides."""
    config = Round(bank_size=6, batch_size=6, calls=3, relabel_prob=0.0)
    members = [member(0.0), member(1.0)]
    averaged, _ = run(Ensemble(members), config)
    switched, _ = run(Ensemble(members, "switched"), config)
    shorter, _ = run(Ensemble(members, "switched"), config.model_copy(update={"calls": 2}))
    for made, shift in ((averaged, 0.5), (switched, 0.0), (shorter, 1.0)):
        assert made.labels is not None
        expected = (CENTRES + shift)[made.labels].view(-1, 1, 1, 1).expand_as(made.images)
        assert torch.allclose(made.images, expected, atol=5e-3)


def test_new_starts_and_classes_come_at_their_rates_and_never_in_the_last_calls() -> None:
    ensemble, config = Ensemble([member()]), Round(bank_size=300, batch_size=300, calls=5, last_calls=4)
    kept, source = run(ensemble, config.model_copy(update={"restart_prob": 0.0, "relabel_prob": 0.0}))
    assert sum(source.given) == 300
    assert kept.labels is not None
    assert kept.labels.bincount().tolist() == [101, 101, 98]

    _, source = run(ensemble, config.model_copy(update={"restart_prob": 1.0, "relabel_prob": 0.0, "last_calls": 5}))
    assert sum(source.given) == 300, "no call mixes"
    _, source = run(ensemble, config.model_copy(update={"restart_prob": 0.2, "relabel_prob": 0.0}))
    restarted = sum(source.given) - 300
    assert 30 < restarted < 95, "a fifth of 300, in the one call that mixes"


def test_relabelled_chains_end_where_their_new_class_is() -> None:
    config = Round(bank_size=300, batch_size=300, calls=2, restart_prob=0.0, relabel_prob=1.0, last_calls=1)
    filled = 0

    def source(count: int) -> Fresh:
        nonlocal filled
        label, filled = 0 if filled < 300 else 2, filled + count
        return Fresh(torch.full((count, 1, 2, 2), 5.0), labels=torch.full((count,), label))

    made = generate(Ensemble([member()]), source, STILL, config, torch.Generator().manual_seed(0))
    assert made.labels is not None
    assert (made.labels == 2).all()
    assert torch.allclose(made.images, torch.full_like(made.images, 0.9), atol=5e-3)


def test_what_is_generated_depends_on_the_seed_alone() -> None:
    warm = STILL.model_copy(update={"step_size": 0.3, "temperature": 0.3})
    config = Round(bank_size=20, batch_size=10, calls=6, restart_prob=0.3, last_calls=2)
    first, second = (run(Ensemble([member()]), config, warm)[0] for _ in range(2))
    assert torch.equal(first.images, second.images)
    assert not torch.equal(first.images[0], first.images[3])


@pytest.mark.parametrize("calls", [1, 3])
def test_a_cycle_visits_each_class_and_comes_back(calls: int) -> None:
    start = torch.full((4, 1, 2, 2), 0.9)
    generator = torch.Generator().manual_seed(0)
    places = list(walk(Ensemble([member()]), start, [0, 1, 2], STILL, calls, generator))
    for place, centre in zip(places, CENTRES, strict=True):
        assert torch.allclose(place, centre.expand_as(place), atol=5e-3)
    assert torch.allclose(places[-1], start, atol=5e-3)
