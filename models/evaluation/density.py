"""Whether chains keep the energies of data: what a density that was learned long-run has to show.

At a fixed point of maximum likelihood, chains and data (with the noise that learning added to it) have the same mean
energy. Chains that are independent of each other are compared with images as two samples.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from models.evaluation.chain_diagnostics import diagnose
from models.evaluation.long_chains import Snapshot


@dataclass(frozen=True)
class Spread:
    """Of energies in nats; `quantiles` at 5, 25, 50, 75 and 95 %."""

    count: int
    mean: float
    standard_deviation: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """Chains' energies against data's.

    `gap` is mean(data) - mean(chains) in nats with Welch's standard error: above 0, chains lie lower than data.
    `kolmogorov` is the largest distance of the two distribution functions, `p_value` its exact or asymptotic one.
    `auc` is the probability that a chain lies above an image, 0.5 for equal distributions.
    """

    gap: float
    gap_error: float
    kolmogorov: float
    p_value: float
    auc: float


def spread(energies: Tensor) -> Spread:
    """Of at least two energies [N]."""
    exact = energies.double()
    at = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
    return Spread(len(exact), float(exact.mean()), float(exact.std()), tuple(exact.quantile(at).tolist()))


def compare(chains: Tensor, data: Tensor) -> Comparison:
    """Two samples of energies, [N] and [M]."""
    from scipy import stats  # of the `eval` extra

    a, b = chains.double(), data.double()
    smirnov = stats.ks_2samp(a.numpy(), b.numpy())
    above = float(stats.mannwhitneyu(a.numpy(), b.numpy()).statistic) / (len(a) * len(b))
    gap_error = math.sqrt(float(a.var()) / len(a) + float(b.var()) / len(b))
    return Comparison(float(b.mean() - a.mean()), gap_error, float(smirnov.statistic), float(smirnov.pvalue), above)


def density_result(
    data: Mapping[str, Tensor],
    snapshots: Sequence[Snapshot],
    trace: Tensor,
    names: Sequence[str],
    record_every: int,
) -> dict[str, Any]:
    """Everything that long chains tell, as plain values.

    Args:
        data: energies in nats of named sets of images.
        trace: [R + 1, N, S]; chains are diagnosed on its second half, the first being taken for burn-in.
        names: of the S summaries.
    """
    second_half = trace[len(trace) // 2 :]
    return {
        "kind": "density",
        "data": {name: asdict(spread(energies)) for name, energies in data.items()},
        "snapshots": [
            {
                "step": snapshot.step,
                "energies": asdict(spread(snapshot.energies)),
                "outside": float((snapshot.states.abs() > 1.0).double().mean()),
                "against": {name: asdict(compare(snapshot.energies, energies)) for name, energies in data.items()},
            }
            for snapshot in snapshots
        ],
        "diagnostics": [each.as_json() for each in diagnose(second_half, names, record_every)],
        "diagnosed_from_step": (len(trace) - len(second_half)) * record_every,
    }
