"""What the engine works on: a job is one image of a request, a chain one of its Markov sequences."""

import asyncio
import secrets
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import zip_longest

import torch
from torch import Tensor

from models.pixels import from_uint8
from models.purifier import Preset
from models.settling import EnergyWatch
from models.streams import NoiseSource, Stream
from models.tasks.restoration import fill
from service.trace import Trace, new_traces


@dataclass(frozen=True)
class Smoothing:
    """Draws behind Gaussian noise, for a certificate; `sigma` is its standard deviation in [0, 1] pixel units."""

    draws: int
    sigma: float


@dataclass(frozen=True)
class Params:
    """How an image is answered; without `classify` the engine only purifies.

    `classification_cost` is how many image-steps it counts to classify one image: what the device measured. `traced`
    keeps what the first replicates do on their way, which does not change it.
    """

    preset: Preset
    classify: bool = True
    smoothing: Smoothing | None = None
    classification_cost: int = 0
    traced: bool = False

    @property
    def chains(self) -> int:
        """Replicates and noisy draws."""
        return self.preset.replicates + (self.smoothing.draws if self.smoothing else 0)

    @property
    def cost(self) -> int:
        """Image-steps: chains x steps (at least one), and classifying their ends and the image itself."""
        classified = self.chains + 1 if self.classify else 0
        return self.chains * max(self.preset.num_steps, 1) + classified * self.classification_cost


@dataclass(frozen=True)
class Result:
    """What came of one image, on the CPU.

    Args:
        purified: float [R, C, H, W], one image a replicate, not clamped.
        logits: [R, K] of the replicates; None when it was not classified, like the next two.
        undefended: the bare classifier's [K].
        smoothed_logits: [N, K], one row a noisy draw.
        energy: U of the image as it came, []; None without steps.
        energy_drop: [R]: U before the first step minus U before the last; 0 without steps.
        steps: int64 [R], how many each replicate ran.
    """

    purified: Tensor
    logits: Tensor | None
    undefended: Tensor | None
    smoothed_logits: Tensor | None
    energy: Tensor | None
    energy_drop: Tensor
    steps: Tensor
    queue_seconds: float
    purify_seconds: float
    classify_seconds: float


@dataclass(eq=False)
class Chain:
    """One chain: where it stands, and while it is not in a slot, its state.

    Its noise and its state come into being with its first step, so that a chain that waits costs nothing.
    """

    job: "Job"
    stream: Stream
    sigma: float = 0.0
    trace: Trace | None = None
    done: int = 0
    slot: int | None = None
    state: Tensor | None = None
    noise: NoiseSource | None = None
    first_energy: Tensor | None = None
    last_energy: Tensor | None = None
    settled: bool = False
    _watch: EnergyWatch | None = field(init=False)

    def __post_init__(self) -> None:
        errors = self.job.params.preset.settle
        self._watch = None if errors is None else EnergyWatch(errors)

    def begin(self, device: torch.device) -> Tensor:
        """The state, at first the job's start behind noise of standard deviation `sigma` in [0, 1] units."""
        if self.noise is None:
            self.noise = NoiseSource(self.stream, device)
            self.state = self.job.begin(device)
            if self.sigma:
                noise = torch.empty_like(self.state)
                self.noise.fill(noise)
                self.state = self.state + 2.0 * self.sigma * noise
        assert self.state is not None
        return self.state

    @property
    def remaining(self) -> int:
        """Steps still to run, at most."""
        return 0 if self.settled else self.job.params.preset.num_steps - self.done

    @property
    def uninterrupted(self) -> int:
        """Steps to run before it ends, or may have settled: where a chain stops does not depend on quanta."""
        bounds = [self.remaining]
        if self._watch is not None:
            bounds.append(self._watch.until_look)
        if self.trace is not None:
            bounds.append(self.trace.until_frame)
        return min(bounds)

    def advance(self, energies: Tensor, state: Tensor) -> None:
        """Note steps that were run: U before each of them, [steps], and where they led."""
        if self.trace is not None:
            self.trace.add(energies, state)
        if self.first_energy is None:
            self.first_energy = energies[0].clone()
        self.done += len(energies)
        if self._watch is not None:
            kept = energies.to("cpu", copy=True)  # the slots overwrite theirs
            looks = [self._watch.add(energy) for energy in kept.unsqueeze(1)]
            self.settled = any(bool(look) for look in looks if look is not None)
        if self.remaining == 0:
            self.last_energy = energies[-1].clone()


@dataclass(eq=False)
class Job:
    """One image and what is asked of it; created by the event loop, then the engine's thread's own.

    Args:
        key: whose turn it is: chains of different keys share the batch evenly.
        deadline: time.monotonic() after which nobody wants the answer.
        stream: where its chains' noise comes from.
        mask: bool [1, H, W], the pixels that chains make anew while the others stand still; None moves all.
    """

    image: Tensor
    params: Params
    key: str
    deadline: float | None
    stream: Stream
    mask: Tensor | None = None
    future: "Future[Result]" = field(default_factory=Future)
    abandoned: bool = False
    submitted: float = field(default_factory=time.perf_counter)
    started: float | None = None
    steps_done: int = 0
    virtual_deadline: float = 0.0
    purified: float | None = None
    traces: list[Trace] = field(init=False)
    chains: list[Chain] = field(init=False)
    unfinished: deque[Chain] = field(init=False)

    def __post_init__(self) -> None:
        preset, smoothing = self.params.preset, self.params.smoothing
        self.traces = new_traces(preset.replicates, preset.num_steps) if self.params.traced else []
        streams = (self.stream.child("replicate", number) for number in range(preset.replicates))
        self.chains = [Chain(self, stream, trace=trace) for stream, trace in zip_longest(streams, self.traces)]
        if smoothing:
            streams = (self.stream.child("smoothing", number) for number in range(smoothing.draws))
            self.chains += [Chain(self, stream, smoothing.sigma) for stream in streams]
        self.unfinished = deque(self.chains if preset.num_steps else ())

    def begin(self, device: torch.device) -> Tensor:
        """Where its chains start: the image in [-1, 1], with a smooth guess of what the mask hides."""
        image = from_uint8(self.image.to(device))
        if self.mask is None:
            return image
        return fill(image[None], self.mask[None].to(device))[0]

    def expired(self, now: float) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and now > self.deadline

    @property
    def steps_left(self) -> int:
        """Image-steps still to run."""
        return self.params.cost - self.steps_done


def request_stream(seed: int | None) -> Stream:
    """Where the noise of a request's image comes from: nobody can know it, unless there is a seed."""
    return Stream(("request", secrets.randbits(128)) if seed is None else ("seed", seed))


class Ticket:
    """A submitted image: its result to come, and how far it is."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.future: asyncio.Future[Result] = asyncio.wrap_future(job.future)
        # A running concurrent Future can not be cancelled, so the engine learns it from the job.
        self.future.add_done_callback(self._note)

    def _note(self, done: "asyncio.Future[Result]") -> None:
        if done.cancelled():
            self._job.abandoned = True

    @property
    def started(self) -> bool:
        """Whether its first steps have run."""
        return self._job.started is not None

    @property
    def steps_done(self) -> int:
        """Image-steps run so far."""
        return self._job.steps_done

    @property
    def steps_total(self) -> int:
        """Image-steps in all."""
        return self._job.params.cost

    @property
    def traces(self) -> list[Trace]:
        """Of the first replicates of a traced job, the first of them with pictures."""
        return self._job.traces
