"""Chains that cores run apart: the same chains, however the batch is cut."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from models.langevin import LangevinConfig, run_langevin
from models.networks.energy import LightEnergy
from models.noise import SeededNoise
from models.streams import ChainNoise, Stream

CONFIG = LangevinConfig(num_steps=5, step_size=0.02, temperature=1e-3)


@pytest.fixture
def light() -> LightEnergy:
    torch.manual_seed(0)
    return LightEnergy(width=8).eval().requires_grad_(False)


@pytest.fixture(params=[1, 2, 3])
def cores(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def images(count: int) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def seeded() -> SeededNoise:
    return SeededNoise(torch.Generator().manual_seed(2))


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_how_many_cores_there_are_changes_rounding_only(light: LightEnergy, cores: int, count: int) -> None:
    x = images(count)
    found, info = run_langevin(light, x, CONFIG, randn_like=seeded())
    whole: list[Tensor] = []
    together, expected = run_langevin(
        light, x, CONFIG, randn_like=seeded(), callback=lambda step, state, _: whole.append(state)
    )
    torch.testing.assert_close(found, together, rtol=0, atol=1e-4)
    torch.testing.assert_close(info.energy, expected.energy, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(info.drift_norm, expected.drift_norm, rtol=1e-3, atol=0)
    assert len(whole) == CONFIG.num_steps
    assert float((found - x).std()) > CONFIG.step_size


def test_streams_go_with_their_chains(light: LightEnergy, cores: int) -> None:
    x, streams = images(9), [Stream(("chain", row)) for row in range(9)]
    found, _ = run_langevin(light, x, CONFIG, randn_like=ChainNoise(streams).sequence())
    for row in (0, 4, 8):
        alone, _ = run_langevin(light, x[row : row + 1], CONFIG, randn_like=ChainNoise([streams[row]]).sequence())
        torch.testing.assert_close(found[row : row + 1], alone, rtol=0, atol=1e-4)


def test_chains_of_a_batch_and_successive_batches_have_noise_of_their_own(light: LightEnergy, cores: int) -> None:
    """On a flat energy a chain is a random walk: known variance, and no correlation between any two chains."""
    walk = LangevinConfig(num_steps=4, step_size=0.5, temperature=1.0)
    noise, x = seeded(), torch.zeros(10, 1, 32, 32)
    ends = torch.cat([run_langevin(lambda y: 0 * y.flatten(1).sum(1), x, walk, randn_like=noise)[0] for _ in range(2)])
    correlation = torch.corrcoef(ends.flatten(1)) - torch.eye(len(ends))
    assert float(correlation.abs().max()) < 5 / math.sqrt(32 * 32)
    assert float(ends.var()) == pytest.approx(4 * 0.5**2, rel=5 * math.sqrt(2 / ends.numel()))


def test_they_run_for_a_caller_in_inference_mode(light: LightEnergy, cores: int) -> None:
    expected, _ = run_langevin(light, images(6), CONFIG, randn_like=seeded())
    with torch.inference_mode():
        found, _ = run_langevin(light, images(6), CONFIG, randn_like=seeded())
    assert torch.equal(found, expected)
