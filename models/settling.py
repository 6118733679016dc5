"""When a chain may stop early: its energy no longer falls.

An attacked image loses energy for longer than a clean one, and a clean image loses its class by walking on for nothing.
So a chain looks back at the end of every window of steps, and stops when its mean energy has not fallen, against the
window before, by more than a number of standard errors.
"""

import torch
from torch import Tensor

WINDOW = 10
"""Steps between two looks."""


def has_settled(energies: Tensor, errors: float) -> Tensor:
    """bool [B], from the energies [2 * WINDOW, B] of the last two windows, in any unit."""
    before, recent = energies[:WINDOW], energies[WINDOW:]
    standard_error = ((before.var(0) + recent.var(0)) / WINDOW).sqrt()
    return before.mean(0) - recent.mean(0) < errors * standard_error


class EnergyWatch:
    """The last energies of B chains that began together, and which of them have settled.

    Args:
        errors: see `has_settled`.
    """

    def __init__(self, errors: float) -> None:
        self._errors, self._steps = errors, 0
        self._energies: list[Tensor] = []

    def add(self, energy: Tensor) -> Tensor | None:
        """Take in a step's energies [B]; at the end of a window, bool [B]: who may stop."""
        self._steps += 1
        self._energies = [*self._energies[1 - 2 * WINDOW :], energy]
        if self._steps % WINDOW or len(self._energies) < 2 * WINDOW:
            return None
        return has_settled(torch.stack(self._energies), self._errors)

    @property
    def until_look(self) -> int:
        """Steps to the end of the window."""
        return WINDOW - self._steps % WINDOW
