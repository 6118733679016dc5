"""Fidelity of chains against how long they run: what short-run, mid-run and long-run learning each are good for.

EBM Life Cycle (arXiv 2205.12243): one network and one objective make an energy whose chains are at their best after
about as many steps as they ran while it learned. Past that, chains of a short-run energy leave the data, those of a
mid-run energy stay for thousands of steps, and those of a long-run energy stay for good.

Each model's chains run twice side by side: from where they started in learning, and from noise. A point is scored
against training images that no chain started from, beside the score of as many other training images, its floor.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from models.config import Frozen
from models.data import ImageDataset
from models.errors import ChainDiverged, DataError
from models.evaluation.density import Comparison, Spread, compare, spread
from models.evaluation.density_model import DensityModel
from models.evaluation.feature_cache import cached_features, image_digest
from models.evaluation.features import FeatureNetwork
from models.evaluation.fidelity import MINIMUM_COUNT, Score, score
from models.evaluation.long_chains import LongChains, Snapshot, nats, read_snapshot, run_chains, snapshot_path
from models.files import replace_file
from models.kept import kept_record
from models.langevin import LangevinConfig
from models.pixels import from_uint8, to_uint8
from models.streams import Stream

STEPS = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
BLOCKS_BETWEEN_RECORDS = 20


class Measuring(Frozen):
    """How the models are compared.

    Args:
        chains: from each start, and images of each kind that they are compared with.
        steps: where chains are looked at, besides their start.
        block: Langevin steps between two places where a run may be stopped.
    """

    chains: int = Field(default=64, ge=MINIMUM_COUNT)
    steps: tuple[int, ...] = Field(default=STEPS, min_length=1)
    block: int = Field(default=50, ge=1)
    seed: int = 0

    def long_chains(self, sampler: LangevinConfig, temperature: float) -> LongChains:
        """The run, for validation as well: steps must ascend and be multiples of the block."""
        block = sampler.model_copy(update={"num_steps": self.block, "temperature": temperature})
        every = self.block * BLOCKS_BETWEEN_RECORDS
        return LongChains(block=block, snapshots=self.steps, record_every=every, seed=self.seed)


FULL = Measuring()


class Point(Frozen):
    """Chains after `step` steps.

    Args:
        digest: SHA-256 of the states.
        scores: against training images, by each feature network.
        energies: in nats, `against` those of training images with the noise that learning added to them.
        outside: share of pixels beyond [-1, 1].
    """

    step: int
    digest: str
    scores: tuple[Score, ...]
    energies: Spread
    against: Comparison
    outside: float


class Curve(Frozen):
    """A model's chains from one start; `diverged` says why the curve ends before the last step, if it does."""

    model: str
    start: str
    points: tuple[Point, ...]
    diverged: str | None = None


class ModelRecord(Frozen):
    """What was measured.

    Args:
        weights: names the averaged weights of all its energies.
        lifetime: mean number of steps that negatives had behind them when learning ended.
        energy_gap: U(positives) - U(negatives) in nats over the last quarter of learning; near 0 when it is stable.
        data_energies: of the training images that chains are compared with.
    """

    name: str
    regime: str
    weights: str
    recipe: dict[str, Any]
    lifetime: float
    energy_gap: Spread
    data_energies: Spread


class LifeCycle(Frozen):
    """The whole result; written as JSON.

    Args:
        features: what the networks in the scores' names are; the first one makes the main figure.
        noisy_data: scores of training images with the noise that learning added to data. That is the density which was
            learned, so that no chain of it should be expected to score better.
    """

    kind: Literal["life-cycle"] = "life-cycle"
    data: str
    measuring: Measuring
    features: dict[str, str]
    noisy_data: tuple[Score, ...]
    models: tuple[ModelRecord, ...]
    curves: tuple[Curve, ...]
    commit: str
    torch: str


@dataclass(frozen=True)
class Walk:
    """A model's chains, by where they started, step 0 first; `data_energies` in nats [M] of the reference images.

    `diverged` says why the chains ended early, if they did.
    """

    record: ModelRecord
    data_energies: Tensor
    snapshots: Mapping[str, Sequence[Snapshot]]
    diverged: str | None


@dataclass(frozen=True)
class RealImages:
    """Three disjoint sets of as many training images, uint8: reference, floor, and where chains start from data."""

    reference: Tensor
    held_out: Tensor
    starts: Tensor


def draw_real(data: ImageDataset, count: int, seed: int) -> RealImages:
    """At random, for files are often sorted by class; raises DataError where there are not so many."""
    if 3 * count > len(data):
        raise DataError(
            f"{data.name} has {len(data)} training images; {count} chains need {3 * count}: "
            "as many for the reference, the floor and the start"
        )
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[: 3 * count]
    return RealImages(*data.images[order].split(count))


def with_noise(images: Tensor, deviation: float, stream: Stream) -> Tensor:
    """uint8 images to [-1, 1] with Gaussian noise, as learning sees them."""
    return from_uint8(images) + deviation * stream.normal(tuple(images.shape))


class Scorer:
    """Scores sets of chains by each feature network, against the same real images."""

    def __init__(self, networks: Sequence[FeatureNetwork], real: RealImages) -> None:
        self._networks = networks
        self._real = [(cached_features(n, real.reference), cached_features(n, real.held_out)) for n in networks]
        self.identity = [*(n.identity for n in networks), image_digest(real.reference), image_digest(real.held_out)]

    def __call__(self, states: Tensor) -> tuple[Score, ...]:
        """Of states [N, C, H, W], clipped to [-1, 1] and rounded to 256 levels as any picture of them."""
        pixels = to_uint8(states)
        return tuple(
            each
            for network, (reference, held_out) in zip(self._networks, self._real, strict=True)
            for each in score(network.name, network.frechet_name, network.features(pixels), reference, held_out)
        )


def run_both(
    model: DensityModel, starts: Mapping[str, Tensor], measuring: Measuring, folder: Path
) -> tuple[dict[str, list[Snapshot]], str | None]:
    """Chains from each start [N, C, H, W], side by side in one batch: snapshots by start, step 0 first.

    The second value says why the chains ended early, if they did: an energy without bound is a finding.
    """
    energy, temperature = model.target()
    config = measuring.long_chains(model.sampler, temperature)
    start = torch.cat(list(starts.values()))
    identity = {"weights": model.digest, "tau": model.tau, "starts": list(starts), "start": _digest(start)}
    diverged = None
    try:
        run_chains(energy, start, config, lambda _, energies: energies[:, None].cpu(), folder, identity)
    except ChainDiverged as error:
        diverged = str(error)
    kept = [path for step in measuring.steps if (path := snapshot_path(folder, step)).exists()]
    whole = [Snapshot(0, start.cpu(), nats(energy, start, temperature).cpu()), *map(read_snapshot, kept)]
    count = len(start) // len(starts)
    parts = {name: slice(count * place, count * (place + 1)) for place, name in enumerate(starts)}
    return {name: [Snapshot(s.step, s.states[p], s.energies[p]) for s in whole] for name, p in parts.items()}, diverged


def measure(snapshot: Snapshot, data: Tensor, scorer: Scorer, path: Path) -> Point:
    """The point, from `path` where it was measured before, and into it where not.

    Args:
        data: energies in nats [M] that the chains' are compared with.
    """
    digest = _digest(snapshot.states)
    asked = json.dumps([digest, _digest(snapshot.energies), _digest(data), scorer.identity])
    key = hashlib.sha256(asked.encode()).hexdigest()
    kept = kept_record(path, _Keyed, "a point")
    if kept is not None and kept.key == key:
        return kept.point
    point = Point(
        step=snapshot.step,
        digest=digest,
        scores=scorer(snapshot.states),
        energies=spread(snapshot.energies),
        against=compare(snapshot.energies, data),
        outside=float((snapshot.states.abs() > 1.0).double().mean()),
    )
    replace_file(path, _Keyed(key=key, point=point).model_dump_json().encode())
    return point


class _Keyed(Frozen):
    key: str
    point: Point


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(str(tuple(tensor.shape)).encode() + tensor.cpu().contiguous().numpy().tobytes()).hexdigest()
