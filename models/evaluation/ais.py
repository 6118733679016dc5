"""Annealed importance sampling (Neal 2001): what a density exp(-U) integrates to, from below and from above.

Particles walk from a base of known normalisation to the target, through densities in between. The mean of their weights
estimates Z without bias, so log Z is underestimated on average, and overestimated by more than b nats with probability
at most exp(-b). Walking back from *exact* samples of the target estimates 1 / Z without bias, which bounds log Z from
above (bidirectional Monte Carlo: Grosse, Ghahramani and Adams 2015). Samples of long chains, and data, are not exact:
from those the upper end is an estimate and no bound.

Acceptance hangs on small differences of U, so U wants float32; weights are added in float64.
"""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor

from models.chain_threads import chain_threads
from models.config import Frozen
from models.errors import ChainDiverged, DataError
from models.evaluation.annealing_bases import Base
from models.evaluation.hamiltonian import Path, hamiltonian_step
from models.streams import Stream

WARM_UP = 50
"""Transitions at the first density in which the pilot finds a step size to begin with."""
FIRST_STEP_SIZE = 0.1
ADAPTATION_RATE = 0.2
"""How fast the pilot's log step size follows its acceptance."""


class Annealing(Frozen):
    """How particles walk.

    Args:
        particles: in each direction; `chunk` of them walk together, and are finished or begun anew after a kill.
        rungs: densities after the base; the k-th is at (k / rungs)^power, for early ones change most.
        leapfrog_steps: of each transition; 1 is the Metropolis-adjusted Langevin algorithm.
        acceptance: what the pilot's particles tune the step size of each rung towards, before any weight is counted.
    """

    base: Base
    particles: int = Field(default=64, ge=2)
    chunk: int = Field(default=16, ge=1)
    rungs: int = Field(default=1000, ge=1)
    power: float = Field(default=4.0, ge=1)
    leapfrog_steps: int = Field(default=5, ge=1)
    acceptance: float = Field(default=0.7, gt=0, lt=1)
    pilot: int = Field(default=16, ge=1)
    seed: int = 0

    @property
    def ladder(self) -> list[float]:
        """The positions on the path, from 0 to 1."""
        return [(rung / self.rungs) ** self.power for rung in range(self.rungs + 1)]


class Walk(Frozen):
    """Particles that have arrived: their log weights in nats and their mean acceptance."""

    log_weights: tuple[float, ...]
    acceptance: float


@dataclass(frozen=True)
class Session:
    """What an earlier session finished, by name, and who is told of what this one finishes.

    `finished` and `advance` (particles times rungs) are called in any order and from any thread.
    """

    done: Mapping[str, Walk] = field(default_factory=dict)
    finished: Callable[[str, Walk], None] = lambda name, walk: None
    advance: Callable[[int], None] = lambda count: None


@dataclass(frozen=True)
class LogZ:
    """An estimate of log Z in nats.

    `value` is log(mean w), or -log(mean w) on the way down; `error` is its standard error by the delta method, to be
    believed only when `effective_particles`, (sum w)^2 / sum w^2, is not small. `mean`, the same with the mean of
    log w, lies further out, and `mean_error` holds for any weights.
    """

    value: float
    error: float
    mean: float
    mean_error: float
    effective_particles: float
    particles: int
    acceptance: float


@dataclass(frozen=True)
class _Chunk:
    name: str
    count: int
    start: Callable[[torch.Generator], Tensor]


def tune(path: Path, shape: tuple[int, ...], config: Annealing, device: torch.device) -> list[float]:
    """The step size at each rung between base and target, by pilot particles that are then thrown away.

    Adapted on the way, step sizes would depend on the particles and weights be biased; fixed beforehand they do not.
    """
    generator = _generator(config, "pilot", device)
    place = path.at(config.base.draw((config.pilot, *shape), generator))
    between = config.ladder[1:-1]
    sizes, log_size = [], math.log(FIRST_STEP_SIZE)
    for b in [*between[:1] * WARM_UP, *between]:
        sizes.append(math.exp(log_size))
        place, probability = hamiltonian_step(path, b, place, sizes[-1], config.leapfrog_steps, generator)
        log_size += ADAPTATION_RATE * (float(probability.mean()) - config.acceptance)
    return sizes[WARM_UP:]


def anneal_up(
    path: Path,
    shape: tuple[int, ...],
    config: Annealing,
    sizes: Sequence[float],
    device: torch.device,
    session: Session | None = None,
) -> LogZ:
    """From the base to the target on states of `shape`: log Z from below. `sizes` are those of `tune`."""
    chunks = []
    for number, first in enumerate(range(0, config.particles, config.chunk)):
        count = min(config.chunk, config.particles - first)
        draw = partial(config.base.draw, (count, *shape))
        chunks.append(_Chunk(f"up {number}", count, draw))
    walks = _walk_all(path, config.ladder, sizes, chunks, config, device, session or Session())
    return estimate(walks)


def check_ends(base: Base, ends: Tensor) -> None:
    """Raises DataError when one of `ends` [N, ...] lies outside the base's box, where the target is taken to be 0."""
    if beyond := int(base.outside(ends).sum()):
        raise DataError(f"{beyond} of {len(ends)} samples lie outside the base's box: widen it or use a Gaussian base")


def anneal_down(
    path: Path, ends: Tensor, config: Annealing, sizes: Sequence[float], session: Session | None = None
) -> LogZ:
    """From samples of the target, `ends` [N, ...], to the base: log Z from above, if the samples are exact."""
    check_ends(config.base, ends)
    chunks = [
        _Chunk(f"down {number}", len(part), partial(_given, part))
        for number, part in enumerate(ends.split(config.chunk))
    ]
    ladder, backwards = config.ladder[::-1], list(sizes)[::-1]
    up = estimate(_walk_all(path, ladder, backwards, chunks, config, ends.device, session or Session()))
    return replace(up, value=-up.value, mean=-up.mean)


def estimate(walks: Sequence[Walk]) -> LogZ:
    """log of the mean weight of all particles, with its errors."""
    log_weights = torch.tensor([each for walk in walks for each in walk.log_weights], dtype=torch.float64)
    count = len(log_weights)
    value = float(log_weights.logsumexp(0)) - math.log(count)
    relative = (log_weights - value).exp()
    return LogZ(
        value=value,
        error=float(relative.std()) / math.sqrt(count),
        mean=float(log_weights.mean()),
        mean_error=float(log_weights.std()) / math.sqrt(count),
        effective_particles=float(relative.sum() ** 2 / relative.square().sum()),
        particles=count,
        acceptance=sum(walk.acceptance * len(walk.log_weights) for walk in walks) / count,
    )


def _walk_all(
    path: Path,
    ladder: Sequence[float],
    sizes: Sequence[float],
    chunks: Sequence[_Chunk],
    config: Annealing,
    device: torch.device,
    session: Session,
) -> list[Walk]:
    """Every chunk, those of the session before from memory; on a CPU each core takes the next chunk alone."""
    stop = threading.Event()

    def walk(chunk: _Chunk) -> Walk:
        if chunk.name in session.done:
            session.advance(chunk.count * config.rungs)
            return session.done[chunk.name]
        generator = _generator(config, chunk.name, device)
        x = chunk.start(generator)
        result = _walk(path, x, ladder, sizes, config.leapfrog_steps, generator, session.advance, stop)
        session.finished(chunk.name, result)
        return result

    if device.type != "cpu":
        return [walk(chunk) for chunk in chunks]
    try:
        return chain_threads().map(walk, chunks)
    finally:
        stop.set()  # after an interrupt or an error, other cores would walk on for minutes


def _walk(
    path: Path,
    x: Tensor,
    ladder: Sequence[float],
    sizes: Sequence[float],
    leapfrog_steps: int,
    generator: torch.Generator,
    advance: Callable[[int], None],
    stop: threading.Event,
) -> Walk:
    """log w = sum_k (b_k - b_{k-1}) (U_base - U)(x_k), where x_k+1 comes from x_k by a transition at b_k."""
    place = path.at(x)
    log_weights = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    accepted = torch.zeros((), dtype=torch.float64, device=x.device)
    for rung, (before, b) in enumerate(pairwise(ladder)):
        if stop.is_set():
            raise InterruptedError("another part of this annealing was interrupted")
        log_weights += (b - before) * (place.base_u - place.u)
        if rung < len(sizes):
            place, probability = hamiltonian_step(path, b, place, sizes[rung], leapfrog_steps, generator)
            accepted += probability.mean()
        advance(len(x))
    if not bool(log_weights.isfinite().all()):
        raise ChainDiverged(f"a weight is {float(log_weights[~log_weights.isfinite()][0])} nats: U is not finite")
    return Walk(log_weights=tuple(log_weights.tolist()), acceptance=float(accepted) / max(len(sizes), 1))


def _given(start: Tensor, generator: torch.Generator) -> Tensor:
    return start


def _generator(config: Annealing, name: str, device: torch.device) -> torch.Generator:
    seed = int(Stream((config.seed, "annealing", name)).generator().integers(2**63))
    return torch.Generator(device).manual_seed(seed)
