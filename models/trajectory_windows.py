"""Windows of a trajectory as an energy reads them: each row near the others, each number of about the same size."""

from dataclasses import dataclass

import torch
from torch import Tensor

LIMIT = 4.0
"""Standard deviations that lie at the ends of [-1, 1]."""


@dataclass(frozen=True)
class WindowCode:
    """Windows [..., T, S] of states and [..., T, A] of actions as rows [..., T, S + A], and back.

    The first row holds its state, each later one what the state moved by since the row before: consecutive states are
    so alike that an energy of the states themselves would be a narrow valley, in which chains crawl. The map is linear,
    so that densities keep their order. Everything is standardised by the training rollouts, LIMIT standard deviations
    at 1.

    Args:
        state, move, action: mean and standard deviation, [2, S], [2, S] and [2, A].
    """

    state: Tensor
    move: Tensor
    action: Tensor

    @classmethod
    def fit(cls, states: Tensor, actions: Tensor) -> "WindowCode":
        """From rollouts [R, F, S] and [R, F, A]."""
        return cls(_moments(states), _moments(states.diff(dim=1)), _moments(actions))

    @property
    def state_size(self) -> int:
        """S."""
        return self.state.shape[1]

    def encode(self, states: Tensor, actions: Tensor) -> Tensor:
        """[..., T, S + A]; 1 is LIMIT standard deviations from the mean."""
        first = _scaled(states[..., :1, :], self.state)
        moves = _scaled(states.diff(dim=-2), self.move)
        return torch.cat([torch.cat([first, moves], -2), _scaled(actions, self.action)], -1)

    def moves(self, rows: Tensor) -> Tensor:
        """What the states moved by, [..., T - 1, S], in the states' unit, from rows [..., T, S + A]."""
        mean, spread = self.move.to(rows)
        moved: Tensor = rows[..., 1:, : self.state_size] * LIMIT * spread + mean
        return moved

    def standardised(self, states: Tensor) -> Tensor:
        """States [..., S] in standard deviations from their mean."""
        return _scaled(states, self.state) * LIMIT


def _moments(values: Tensor) -> Tensor:
    flat = values.flatten(0, 1)
    return torch.stack([flat.mean(0), flat.std(0).clamp(min=1e-6)])


def _scaled(values: Tensor, moments: Tensor) -> Tensor:
    mean, spread = moments.to(values)
    scaled: Tensor = (values - mean) / (LIMIT * spread)
    return scaled
