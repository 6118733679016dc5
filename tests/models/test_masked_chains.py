"""Chains of which only some pixels move, against the conditional distribution that they must sample."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from models.langevin import LangevinConfig, run_langevin
from models.networks.energy import LightEnergy
from models.noise import SeededNoise
from models.streams import ChainNoise, Stream

PRECISION = torch.tensor([[2.0, 0.8, 0.3, 0.1], [0.8, 1.5, 0.5, 0.2], [0.3, 0.5, 1.2, -0.6], [0.1, 0.2, -0.6, 1.8]])
LIGHT = LangevinConfig(num_steps=30, step_size=0.02, temperature=1e-3)


def correlated(x: Tensor) -> Tensor:
    """x' P x / 2 on images of 2x2 pixels."""
    flat = x.flatten(1)
    return (flat @ PRECISION * flat).sum(1) / 2


def seeded(seed: int = 0) -> SeededNoise:
    return SeededNoise(torch.Generator().manual_seed(seed))


@pytest.fixture(params=[1, 2])
def cores(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def light() -> LightEnergy:
    torch.manual_seed(0)
    return LightEnergy(width=8).eval().requires_grad_(False)


def test_free_pixels_have_the_conditional_mean_and_variance(cores: int) -> None:
    """Given b, the free a of N(0, T P^-1) have mean -P_aa^-1 P_ab b, and as a chain the discretised covariance.

    With A = 1 - (s^2 / 2T) P_aa the stationary covariance S solves S = A S A + s^2.
    """
    chains, known = 8_000, torch.tensor([0.9, -0.7])
    config = LangevinConfig(num_steps=60, step_size=0.5, temperature=0.5)
    start = torch.cat([torch.zeros(2), known]).view(1, 1, 2, 2).expand(chains, 1, 2, 2)
    mask = torch.tensor([True, True, False, False]).view(1, 1, 2, 2)
    x, _ = run_langevin(correlated, start, config, randn_like=seeded(), mask=mask)
    free = x.flatten(1)[:, :2]
    mean = -torch.linalg.solve(PRECISION[:2, :2], PRECISION[:2, 2:] @ known)
    shrink = torch.eye(2) - config.drift_rate * PRECISION[:2, :2]
    solved = torch.linalg.solve(torch.eye(4) - torch.kron(shrink, shrink), config.step_size**2 * torch.eye(2).flatten())
    covariance = solved.view(2, 2)
    error = 4 * math.sqrt(float(covariance.max()) / chains)
    torch.testing.assert_close(free.mean(0), mean, rtol=0, atol=error)
    torch.testing.assert_close(free.T.cov(), covariance, rtol=0, atol=6 * float(covariance.max()) / math.sqrt(chains))
    assert float(mean.abs().max()) > 5 * error, "the known pixels must matter"
    assert torch.equal(x.flatten(1)[:, 2:], known.expand(chains, 2))


@pytest.mark.parametrize("settle", [None, 0.5])
def test_known_pixels_stand_still_to_the_bit(light: LightEnergy, cores: int, settle: float | None) -> None:
    """A mask an image, apart on cores, with chains that leave the batch at different steps."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(21, 3, 32, 32, generator=generator) * 2 - 1
    mask = torch.rand(21, 1, 32, 32, generator=generator) < torch.linspace(0.05, 0.95, 21).view(-1, 1, 1, 1)
    everywhere = mask.expand_as(x)
    config = LIGHT.model_copy(update={"settle": settle})
    found, info = run_langevin(light, x, config, randn_like=seeded(), mask=mask)
    assert torch.equal(found[~everywhere], x[~everywhere])
    assert bool((found[everywhere] != x[everywhere]).float().mean() > 0.999)
    assert (len(info.num_steps.unique()) > 1) == (settle is not None)


def test_counts_and_masks_go_with_their_chains(light: LightEnergy) -> None:
    """Each chain is the one that it is alone, with its own mask, noise and number of steps."""
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(18, 3, 32, 32, generator=generator) * 2 - 1
    mask = torch.rand(18, 3, 32, 32, generator=generator) < 0.5
    counts = torch.arange(18)
    streams = [Stream(("chain", row)) for row in range(18)]
    found, _ = run_langevin(light, x, LIGHT, counts, ChainNoise(streams).sequence(), mask=mask)
    for row in (0, 1, 9, 17):
        noise = ChainNoise([streams[row]]).sequence()
        config = LIGHT.model_copy(update={"num_steps": row})
        alone, _ = run_langevin(light, x[row : row + 1], config, randn_like=noise, mask=mask[row : row + 1])
        torch.testing.assert_close(found[row : row + 1], alone, rtol=0, atol=1e-4)
        assert torch.equal(found[row][~mask[row]], x[row][~mask[row]])


def test_a_mask_of_ones_changes_nothing(light: LightEnergy) -> None:
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    plain, info = run_langevin(light, x, LIGHT, randn_like=seeded())
    masked, expected = run_langevin(light, x, LIGHT, randn_like=seeded(), mask=torch.ones(1, 1, 1, 1, dtype=torch.bool))
    assert torch.equal(plain, masked)
    assert torch.equal(info.drift_norm, expected.drift_norm)


@pytest.mark.parametrize(
    "mask",
    [torch.ones(2, 1, 4, 4), torch.ones(3, 1, 4, 4).bool(), torch.ones(1, 4, 4).bool(), torch.ones(2, 3, 4, 4).bool()],
)
def test_masks_that_do_not_fit_are_refused(mask: Tensor) -> None:
    with pytest.raises(ValueError, match=r"must be torch.bool, of shape \[2, 1, 4, 4\]"):
        run_langevin(correlated, torch.zeros(2, 1, 4, 4), LIGHT, mask=mask)
