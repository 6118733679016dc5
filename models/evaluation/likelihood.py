"""What data are worth under a density whose log Z lies between two ends: nats, and bits per dimension.

For pixels dequantised with uniform noise, the log-likelihood of the levels is at least log p(x) + D log(level width)
(Theis, van den Oord and Bethge 2016), in expectation over the noise.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from models.evaluation.ais import LogZ
from models.pixels import LEVEL_WIDTH


@dataclass(frozen=True)
class Likelihood:
    """Of data under one end of log Z: nats and bits per dimension, each with the standard error over the images.

    The end's own error is not in it: it stands in the `LogZ`.
    """

    nats: float
    nats_error: float
    bits_per_dimension: float
    bits_error: float


def likelihood(energies: Tensor, log_z: float, dimensions: int) -> Likelihood:
    """From the energies in nats [N] of dequantised images, in [-1, 1] pixel units, of so many dimensions."""
    each = -energies.double() - log_z
    bits = -(each / dimensions + math.log(LEVEL_WIDTH)) / math.log(2.0)
    root = math.sqrt(len(each))
    return Likelihood(float(each.mean()), float(each.std()) / root, float(bits.mean()), float(bits.std()) / root)


def likelihood_result(
    up: LogZ, down: LogZ | None, exact: bool, data: Sequence[tuple[str, Tensor]], dimensions: int
) -> dict[str, Any]:
    """Both ends of log Z, and of each named set of energies' likelihood: a lower log Z flatters the data.

    Args:
        down: None when there were no samples to walk back from; then nothing bounds the likelihood from below.
        exact: whether those samples were exact, without which the upper end of log Z is an estimate and no bound.
    """
    upper = None if down is None else {**asdict(down), "is": "stochastic upper bound" if exact else "estimate"}
    return {
        "kind": "likelihood",
        "log_z": {"lower": {**asdict(up), "is": "stochastic lower bound"}, "upper": upper},
        "likelihood": {
            name: {
                "images": len(energies),
                "at_most": asdict(likelihood(energies, up.value, dimensions)),
                "at_least": None if down is None else asdict(likelihood(energies, down.value, dimensions)),
            }
            for name, energies in data
        },
    }
