"""Tempering: chains that begin hot and end cold, their noise falling linearly to nothing while the drift stays."""

from torch import Tensor

from attacks_eval.purifiers import LangevinPurifier
from models.streams import ChainNoise


class CoolingNoise(ChainNoise):
    """The streams' noise times 1 - k / `num_steps` at step k: a step's temperature is the square of that times T."""

    def __init__(self, noise: ChainNoise, num_steps: int) -> None:
        super().__init__(noise.streams)
        self.num_steps = num_steps

    def at(self, step: int, like: Tensor) -> Tensor:
        """See `ChainNoise`."""
        return (1.0 - step / self.num_steps) * super().at(step, like)

    def rows(self, part: slice) -> "CoolingNoise":
        """See `ChainNoise`."""
        return CoolingNoise(super().rows(part), self.num_steps)


class CoolingPurifier(LangevinPurifier):
    """A bundle's chain under cooling noise. It is the adversary's alone: the service has no such preset."""

    def noise_of_steps(self, noise: ChainNoise) -> ChainNoise:
        """Less and less of it. Only its scale changes from step to step, so gradients go back as they did."""
        return CoolingNoise(noise, self.num_steps)
