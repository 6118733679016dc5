"""Chains that stop when their energy no longer falls."""

import pytest
import torch
from torch import Tensor

from models.langevin import LangevinConfig, run_langevin
from models.noise import SeededNoise
from models.settling import WINDOW, EnergyWatch, has_settled

CONFIG = LangevinConfig(num_steps=200, step_size=0.5, temperature=1.0, settle=2.0)
PIXELS = 3 * 8 * 8


def quadratic(x: Tensor) -> Tensor:
    """|x|^2 / 2: at temperature 1 the target is N(0, I), and its mean energy PIXELS / 2."""
    return x.flatten(1).square().sum(1) / 2


def seeded(seed: int = 0) -> SeededNoise:
    return SeededNoise(torch.Generator().manual_seed(seed))


def test_a_fall_is_measured_in_its_own_standard_errors() -> None:
    """Windows with deviation s whose means differ by d: the fall is d / sqrt(2 s^2 / WINDOW) standard errors."""
    ripple = torch.tensor([1.0, -1.0]).repeat(WINDOW // 2)
    variance = float(ripple.var())
    fall = 3.0 * (2 * variance / WINDOW) ** 0.5
    energies = torch.cat([ripple + fall, ripple]).unsqueeze(1)
    assert not has_settled(energies, 2.99).any()
    assert has_settled(energies, 3.01).all()
    assert has_settled(energies.flip(0), 0.01).all(), "an energy that rises has settled"
    assert torch.equal(has_settled(1000 * energies + 7, 2.99), has_settled(energies, 2.99))


def test_a_watch_looks_at_the_end_of_each_window_from_the_second_on() -> None:
    watch, looks = EnergyWatch(1.0), []
    for step in range(45):
        left = watch.until_look
        if watch.add(torch.tensor([float(step % 2)])) is not None:
            looks.append(step + 1)
            assert left == 1
    assert looks == [20, 30, 40]


def test_who_starts_far_away_walks_longer_and_all_arrive() -> None:
    near, far = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.full((64, 3, 8, 8), 20.0)
    found, info = run_langevin(quadratic, torch.cat([near, far]), CONFIG, randn_like=seeded())
    steps_near, steps_far = info.num_steps.float().split(64)
    assert 2 * WINDOW <= float(steps_near.mean()) < 3 * WINDOW
    assert float(steps_far.min()) > 2 * float(steps_near.mean())
    assert int(info.num_steps.max()) <= CONFIG.num_steps
    assert bool((info.num_steps % WINDOW == 0).all())
    assert float(quadratic(found[64:]).mean()) < 1000 < float(quadratic(far).mean())


def test_a_chain_that_settles_is_a_prefix_of_the_one_that_does_not() -> None:
    x = torch.linspace(0, 4, 40).view(40, 1, 1, 1).expand(40, 3, 8, 8)
    seen: list[Tensor] = []
    found, info = run_langevin(quadratic, x, CONFIG, randn_like=seeded())
    whole = CONFIG.model_copy(update={"settle": None})
    run_langevin(quadratic, x, whole, randn_like=seeded(), callback=lambda _, state, __: seen.append(state))
    expected = torch.stack([seen[int(steps) - 1][row] for row, steps in enumerate(info.num_steps)])
    assert torch.equal(found, expected)
    assert len(info.num_steps.unique()) > 2


def test_it_stands_still_in_what_a_callback_sees() -> None:
    x, seen = torch.linspace(0, 4, 40).view(40, 1, 1, 1).expand(40, 3, 8, 8), []
    found, info = run_langevin(
        quadratic, x, CONFIG, randn_like=seeded(), callback=lambda _, state, __: seen.append(state)
    )
    assert len(seen) == int(info.num_steps.max())
    assert torch.equal(seen[-1], found)
    for row, steps in enumerate(info.num_steps.tolist()):
        assert all(torch.equal(state[row], found[row]) for state in seen[steps - 1 :])
        assert not torch.equal(seen[steps - 2][row], found[row])


@pytest.mark.parametrize("settle", [0.0, -1.0])
def test_a_threshold_that_makes_no_sense_is_refused(settle: float) -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        LangevinConfig(num_steps=1, step_size=0.1, temperature=1.0, settle=settle)
