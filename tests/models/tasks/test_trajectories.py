"""Prediction of trajectories, against futures, conditional laws and distances that are known."""

import pytest
import torch
from torch import Tensor

from models.langevin import LangevinConfig
from models.networks.vector_energy import VectorEnergy
from models.tasks.trajectories import (
    by_chains,
    by_network,
    diversity,
    futures,
    known_entries,
    roll_forward,
    score,
)
from models.trajectory_windows import WindowCode
from tests.models.tasks.hands import independent_rollouts

STANDARD = WindowCode(*(torch.stack([torch.zeros(size), torch.ones(size)]) for size in (24, 24, 20)))
"""The code of processes whose states, moves and actions are all standard normal."""
LAST = (slice(None), 0, 2, slice(0, 24))


def test_futures_are_cut_where_they_are_said_to_be() -> None:
    rollouts = independent_rollouts(3, 20, 0)
    start = futures(rollouts, past=2, horizon=5, stride=4)
    assert [len(each) for each in start] == [3 * 4] * 3
    assert torch.equal(start.past[5], rollouts.states[1, 4:6])
    assert torch.equal(start.states[5], rollouts.states[1, 6:11])
    assert torch.equal(start.actions[5], rollouts.actions[1, 4:11])


def test_a_roll_out_follows_its_own_states_and_the_real_actions() -> None:
    """Where a state moves by twice its own action, the future is a sum of actions."""
    start = futures(independent_rollouts(2, 20, 0), past=2, horizon=6, stride=3)

    def advance(windows: Tensor) -> Tensor:
        filled = windows.clone()
        assert not windows[LAST].any()
        filled[LAST] = 2 * windows[:, 0, 2, 24:25]
        return filled

    predicted = roll_forward(advance, STANDARD, start, known_entries(3, 24, 44, actions=True))
    wanted = start.past[:, -1:] + 2 * start.actions[:, 2:, :1].cumsum(1)
    torch.testing.assert_close(predicted, wanted, rtol=0, atol=1e-4)
    unknown = roll_forward(advance, STANDARD, start, known_entries(3, 24, 44, actions=False))
    torch.testing.assert_close(unknown, start.past[:, -1:].expand(-1, 6, -1))


def test_chains_draw_from_the_conditional_law() -> None:
    """U = |last - previous / 2|^2 / (2 v): given the previous row, N(previous / 2, v), by the discretised chain's v."""
    variance, config = 0.02, LangevinConfig(num_steps=80, step_size=0.06, temperature=1.0)

    def energy(x: Tensor) -> Tensor:
        return (x[:, 0, 2, :24] - x[:, 0, 1, :24] / 2).square().sum(1) / (2 * variance)

    known = known_entries(3, 24, 44, actions=True)
    windows = torch.where(known, torch.randn(400, 1, 3, 44, generator=torch.Generator().manual_seed(0)), 0.0)
    drawn = by_chains(energy, config, known, torch.Generator().manual_seed(1))(windows)
    assert torch.equal(drawn[known.expand_as(drawn)], windows[known.expand_as(windows)])
    rest = drawn[LAST] - windows[:, 0, 1, :24] / 2
    stationary = variance / (1 - config.step_size**2 / (4 * variance))
    assert rest.mean().item() == pytest.approx(0, abs=4 * (variance / rest.numel()) ** 0.5)
    assert rest.var().item() == pytest.approx(stationary, rel=0.06)


def test_noise_of_the_residuals_has_their_covariance() -> None:
    known = known_entries(3, 24, 44, actions=False)
    root = torch.randn(24, 24, generator=torch.Generator().manual_seed(0)).triu()
    network = torch.nn.Linear(48, 24)
    windows = torch.zeros(40_000, 1, 3, 44)
    noisy = by_network(network, known, root, torch.Generator().manual_seed(1))(windows)[LAST]
    torch.testing.assert_close(noisy.mean(0), network.bias.detach(), rtol=0, atol=0.15)
    torch.testing.assert_close(torch.cov(noisy.T), root.T @ root, rtol=0, atol=1.0)
    assert torch.equal(by_network(network, known)(windows[:2])[LAST], network.bias.detach().expand(2, -1))


def test_scores_are_the_known_distances() -> None:
    """N(0, I) moved by d has Fréchet distance |d|^2 from itself; shrunk to c, 24 (1 - c)^2."""
    start = futures(independent_rollouts(200, 22, 0), past=2, horizon=20, stride=20)
    spread = start.states.flatten(0, 1).std(0)
    code = WindowCode(torch.stack([torch.zeros(24), spread]), STANDARD.move, STANDARD.action)
    moved = score(start.states + 0.5 * spread, start, code)
    assert moved.states == pytest.approx([24 * 0.25] * 20, rel=1e-3)
    assert moved.errors == pytest.approx([0.25] * 20, rel=1e-3)
    same = score(start.states, start, code)
    assert max(*same.states, *same.motion) < 1e-3
    shrunk = score(0.5 * start.states, start, code)
    assert sum(shrunk.states) / 20 == pytest.approx(24 * 0.25, rel=0.05)


def test_standing_still_keeps_the_states_and_not_the_motion() -> None:
    start = futures(independent_rollouts(1000, 8, 0), past=2, horizon=6, stride=6)
    found = score(start.past[:, -1:].expand(-1, 6, -1), start, STANDARD)
    assert max(found.states) < 1
    assert min(found.motion) > 10


def test_diversity_is_the_standard_deviation_within_a_start() -> None:
    generator = torch.Generator().manual_seed(0)
    means = 10 * torch.randn(1, 40, 3, 24, generator=generator)
    samples = means + 0.7 * torch.randn(50, 40, 3, 24, generator=generator)
    assert diversity(samples, STANDARD) == pytest.approx([0.7] * 3, rel=0.02)
    assert diversity(means.expand(2, -1, -1, -1), STANDARD) == pytest.approx([0.0] * 3, abs=1e-6)


def test_an_energy_of_vectors_reads_windows_laid_flat_and_scaled() -> None:
    windows = torch.randn(5, 1, 3, 44, generator=torch.Generator().manual_seed(0))
    energy, scaled = VectorEnergy(132, [16]), VectorEnergy(132, [16], scale=8.0)
    scaled.load_state_dict(energy.state_dict())
    assert torch.equal(energy(windows), energy(windows.flatten(1)))
    assert torch.equal(scaled(windows), energy(8 * windows))
    assert not torch.allclose(energy(windows), energy(8 * windows))
