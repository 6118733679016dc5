"""The sampler against distributions whose moments are known."""

import math

import pytest
import torch
from torch import Tensor

from models.langevin import LangevinConfig, add_energies, run_langevin
from models.noise import SeededNoise


def quadratic(x: Tensor) -> Tensor:
    """|x|^2 / 2: at temperature T the target is N(0, T)."""
    return x.flatten(1).square().sum(1) / 2


def test_variance_of_a_quadratic_is_that_of_the_discretised_chain() -> None:
    """x <- (1 - a) x + s z with a = s^2 / 2T has variance s^2 / (1 - (1 - a)^2), not T."""
    config = LangevinConfig(num_steps=200, step_size=0.3, temperature=0.25)
    noise = SeededNoise(torch.Generator().manual_seed(0))
    x, _ = run_langevin(quadratic, torch.zeros(20_000, 4), config, randn_like=noise)
    a = config.step_size**2 / (2 * config.temperature)
    expected = config.step_size**2 / (1 - (1 - a) ** 2)
    # The standard error of a variance from n normal draws is variance * sqrt(2 / n).
    tolerance = 4 * expected * math.sqrt(2 / x.numel())
    assert x.var().item() == pytest.approx(expected, abs=tolerance)
    assert abs(expected - config.temperature) > 2 * tolerance
    assert x.mean().item() == pytest.approx(0.0, abs=4 * math.sqrt(expected / x.numel()))


def test_without_noise_a_step_is_gradient_descent() -> None:
    config = LangevinConfig(num_steps=3, step_size=0.2, temperature=0.5)
    start = torch.tensor([[1.0, -2.0]])
    x, info = run_langevin(quadratic, start, config, randn_like=torch.zeros_like)
    shrink = 1 - 0.2**2 / (2 * 0.5)
    assert torch.allclose(x, start * shrink**3)
    assert info.energy.item() == pytest.approx(quadratic(start * shrink**2).item())
    lengths = [(1 - shrink) * shrink**k * math.sqrt(5) for k in range(3)]
    assert info.drift_norm.item() == pytest.approx(sum(lengths) / 3)


def test_energy_terms_add_with_their_own_temperatures() -> None:
    """U = |x|^2/2 / T + 3 x / T' + |x|^2 / 2 tau^2, whose gradient is known."""
    total = add_energies([(quadratic, 0.5), (lambda x: 3 * x.flatten(1).sum(1), 0.1)], tau=0.25)
    x = torch.tensor([[1.0, -2.0]], requires_grad=True)
    (grad,) = torch.autograd.grad(total(x).sum(), x)
    assert torch.allclose(grad, x.detach() / 0.5 + 3 / 0.1 + x.detach() / 0.25**2)


def test_gaussian_term_alone_samples_its_own_width() -> None:
    config = LangevinConfig(num_steps=400, step_size=0.03, temperature=1.0)
    noise = SeededNoise(torch.Generator().manual_seed(1))
    x, _ = run_langevin(add_energies([], tau=0.15), torch.zeros(20_000, 2), config, randn_like=noise)
    assert x.std().item() == pytest.approx(0.15, rel=0.02)


def test_each_chain_runs_its_own_number_of_steps() -> None:
    config = LangevinConfig(num_steps=0, step_size=0.2, temperature=0.5)
    counts = torch.tensor([2, 0, 5, 1])
    start = torch.arange(1.0, 5.0).unsqueeze(1)
    x, info = run_langevin(quadratic, start, config, num_steps=counts, randn_like=torch.zeros_like)
    shrink = 1 - 0.2**2 / (2 * 0.5)
    assert torch.allclose(x, start * shrink ** counts.unsqueeze(1))
    assert info.drift_norm[1] == 0
    assert info.energy[2].item() == pytest.approx(quadratic(start[2:3] * shrink**4).item())
    assert torch.equal(start, torch.arange(1.0, 5.0).unsqueeze(1)), "the argument was written to"


def test_step_counts_of_the_wrong_shape_or_sign_are_refused() -> None:
    config = LangevinConfig(num_steps=1, step_size=0.1, temperature=1.0)
    for counts in (torch.tensor([1]), torch.tensor([1, -1])):
        with pytest.raises(ValueError, match="2 counts"):
            run_langevin(quadratic, torch.zeros(2, 1), config, num_steps=counts)


def test_runs_inside_no_grad_and_returns_no_gradient() -> None:
    config = LangevinConfig(num_steps=2, step_size=0.1, temperature=1.0)
    with torch.no_grad():
        x, _ = run_langevin(quadratic, torch.ones(2, 3), config, randn_like=torch.zeros_like)
    assert not torch.equal(x, torch.ones(2, 3))
    x, _ = run_langevin(quadratic, torch.ones(2, 3, requires_grad=True), config)
    assert not x.requires_grad


def test_callback_sees_every_state_in_order() -> None:
    config = LangevinConfig(num_steps=4, step_size=0.1, temperature=1.0)
    seen: list[tuple[int, Tensor]] = []
    x, _ = run_langevin(quadratic, torch.ones(1, 1), config, callback=lambda i, state, _: seen.append((i, state)))
    assert [index for index, _ in seen] == [0, 1, 2, 3]
    assert torch.equal(seen[-1][1], x)


def test_bfloat16_is_the_networks_precision_never_the_chains() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 1)
    seen: list[torch.dtype] = []

    def energy(x: Tensor) -> Tensor:
        out: Tensor = layer(x)
        seen.append(out.dtype)
        return out.squeeze(1)

    x = torch.randn(8, 64)
    low = LangevinConfig(num_steps=1, step_size=0.1, temperature=0.01, precision="bfloat16")
    moved, _ = run_langevin(energy, x, low, randn_like=torch.zeros_like)
    full = low.model_copy(update={"precision": "float32"})
    exact, _ = run_langevin(energy, x, full, randn_like=torch.zeros_like)
    assert seen == [torch.bfloat16, torch.float32]
    assert moved.dtype == torch.float32
    drift = (exact - x).norm()
    assert 0 < (moved - exact).norm() < 0.01 * drift


def test_seeded_noise_repeats_and_advances() -> None:
    def chain() -> Tensor:
        config = LangevinConfig(num_steps=3, step_size=0.1, temperature=1.0)
        noise = SeededNoise(torch.Generator().manual_seed(7))
        return run_langevin(quadratic, torch.zeros(2, 3), config, randn_like=noise)[0]

    assert torch.equal(chain(), chain())
    noise = SeededNoise(torch.Generator().manual_seed(7))
    assert not torch.equal(noise(torch.zeros(3)), noise(torch.zeros(3)))
