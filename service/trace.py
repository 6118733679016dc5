"""What a demonstration keeps of a chain: the energy before each step and, now and then, the picture."""

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

FRAMES = 24
"""Pictures, about, that are kept of a chain."""
MOST_TRACES = 16
"""Replicates of an image, at most, of which anything is kept."""


class Frame(NamedTuple):
    """A chain's state, float [C, H, W] on the CPU, after so many steps."""

    step: int
    state: Tensor


@dataclass
class Trace:
    """Written by the engine's thread, which only appends; others may read it at any time.

    Args:
        every: steps between two frames.
    """

    every: int
    energies: list[float] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)

    @property
    def until_frame(self) -> int:
        """Steps until the next frame is due."""
        return self.every - len(self.energies) % self.every

    def add(self, energies: Tensor, state: Tensor) -> None:
        """Note steps that were run, no more than until the next frame: U before each, [steps], and where they led."""
        due = len(energies) == self.until_frame
        self.energies += energies.tolist()
        if due:
            self.frames.append(Frame(len(self.energies), state.to("cpu", copy=True)))


def new_traces(replicates: int, num_steps: int) -> list[Trace]:
    """For the first replicates of an image, all of which pause at the same steps."""
    return [Trace(max(1, num_steps // FRAMES)) for _ in range(min(replicates, MOST_TRACES))]
