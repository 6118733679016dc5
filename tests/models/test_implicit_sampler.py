"""IGEBM's sampler (arXiv 1903.08689, and its code) in the words of ours.

There images u are in [0, 1], and a step is u <- clamp(u + s z - r clip(dE/du, -p, p), 0, 1), noise first, with
s = 0.005, r = 10 and p = 0.01 for CIFAR-10. With x = 2u - 1, dE/du = 2 dE/dx and a step of u is half of one of x, so
that our step_size is 2s, the drift is 4r clip(dE/dx, -p/2, p/2), and step_size^2 / 2T = 4r gives T = s^2 / 2r.
"""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from models.langevin import LangevinConfig, run_langevin
from models.pixels import from_unit, to_unit
from models.purifier import Preset

NOISE, RATE, CLIP, STEPS = 0.005, 10.0, 0.01, 7
OURS = LangevinConfig(num_steps=STEPS, step_size=2 * NOISE, temperature=NOISE**2 / (2 * RATE), gradient_clamp=CLIP / 2)
CENTRE = 0.4
CURVATURE = torch.linspace(0.005, 0.05, 48).view(1, 3, 4, 4)


def energy_of_unit(u: Tensor) -> Tensor:
    return (CURVATURE / 2 * (u - CENTRE) ** 2).flatten(1).sum(1)


def energy(x: Tensor) -> Tensor:
    return energy_of_unit(to_unit(x))


def their_chain(u: Tensor, noise: list[Tensor], box: bool) -> Tensor:
    """The update of the paper's code, with the gradient of the quadratic written out."""
    for z in noise:
        u = u + NOISE * z
        u = u - RATE * (CURVATURE * (u - CENTRE)).clamp(-CLIP, CLIP)
        u = u.clamp(0, 1) if box else u
    return u


@pytest.fixture
def starts() -> Tensor:
    return torch.rand(9, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def noise() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(9, 3, 4, 4, generator=generator) for _ in range(STEPS)]


def test_numbers_of_the_paper_in_our_units() -> None:
    assert OURS.temperature == pytest.approx(1.25e-6)
    assert OURS.drift_rate == pytest.approx(4 * RATE)


def test_a_chain_is_theirs_that_begins_half_a_step_earlier(starts: Tensor, noise: list[Tensor]) -> None:
    """They add noise before the drift, we after it: their first noise belongs to our start, and our last is none."""
    expected = their_chain(starts, noise, box=False)
    ours = iter([*noise[1:], torch.zeros_like(starts)])
    begun = from_unit(starts) + OURS.step_size * noise[0]
    found, _ = run_langevin(energy, begun, OURS, randn_like=lambda _: next(ours))
    assert torch.allclose(to_unit(found), expected, atol=1e-5)
    clipped = ((CURVATURE * (starts - CENTRE)).abs() > CLIP).float().mean()
    assert 0.05 < float(clipped) < 0.95, "both sides of the clip are reached"
    free, _ = run_langevin(energy, begun, OURS.model_copy(update={"gradient_clamp": None}), randn_like=torch.zeros_like)
    assert not torch.allclose(to_unit(free), expected, atol=0.01)


def test_in_the_box_a_step_without_noise_is_theirs() -> None:
    starts, still = torch.rand(9, 3, 4, 4), [torch.zeros(9, 3, 4, 4)] * STEPS
    steep = OURS.model_copy(update={"box": 1.0})

    def outwards(x: Tensor) -> Tensor:
        return -energy(x)

    found, _ = run_langevin(outwards, from_unit(starts), steep, randn_like=torch.zeros_like)
    u = starts
    for _ in still:
        u = (u + RATE * (CURVATURE * (u - CENTRE)).clamp(-CLIP, CLIP)).clamp(0, 1)
    assert torch.allclose(to_unit(found), u, atol=1e-5)
    assert float(((found.abs() == 1).float()).mean()) > 0.3, "the box was reached"


def test_states_stay_in_the_box_at_every_step_and_outside_it_by_default(starts: Tensor) -> None:
    """On a flat energy, a wide walk."""
    config = LangevinConfig(num_steps=20, step_size=0.5, temperature=1.0, box=1.0)
    seen: list[float] = []

    def flat(x: Tensor) -> Tensor:
        return 0 * x.flatten(1).sum(1)

    run_langevin(flat, from_unit(starts), config, callback=lambda step, x, _: seen.append(float(x.abs().max())))
    assert seen == [1.0] * 20
    free, _ = run_langevin(flat, from_unit(starts), config.model_copy(update={"box": None}))
    assert float(free.abs().max()) > 2


def test_the_drift_that_is_reported_is_the_clamped_one(starts: Tensor) -> None:
    def steep(x: Tensor) -> Tensor:
        return 100 * x.flatten(1).sum(1)

    _, info = run_langevin(steep, from_unit(starts), OURS.model_copy(update={"num_steps": 1}))
    assert torch.allclose(info.drift_norm, torch.full((9,), 4 * RATE * CLIP / 2 * 48**0.5))


def test_a_defences_chains_take_no_limits() -> None:
    with pytest.raises(ValidationError, match="not clamped, got gradient_clamp None and box 1.0"):
        Preset(num_steps=1, step_size=0.1, temperature=1.0, replicates=1, box=1.0)
    written = LangevinConfig(num_steps=1, step_size=0.1, temperature=1.0).model_dump()
    assert written.keys() == {"num_steps", "step_size", "temperature", "precision", "settle"}
