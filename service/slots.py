"""The device's side of the engine: one batch of chains, advanced together by a quantum of steps.

Shapes are fixed to a few batch sizes, the buckets: a chain's result is then the same, bit for bit, whichever slot it
has and whoever its neighbours are, and on CUDA one step of each bucket is captured once and replayed. Step size and
drift rate are per slot and pixel: 0 where a restoration's pixels are known. Nothing here waits for the device within a
quantum.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.chain_threads import ChainThreads, shares
from models.gradients import Gradient
from models.langevin import langevin_transition
from service.jobs import Chain

CAPTURE_WARM_UP = 3


@dataclass(frozen=True)
class Profile:
    """Seconds a step by batch size, and the steps that chains stay together in each, both by bucket, ascending."""

    seconds: dict[int, float]
    quantum: dict[int, int]

    @property
    def buckets(self) -> tuple[int, ...]:
        """The batch sizes, ascending."""
        return tuple(self.seconds)

    @property
    def rate(self) -> float:
        """Image-steps per second with every slot taken."""
        largest = self.buckets[-1]
        return largest / self.seconds[largest]

    def bucket(self, chains: int) -> int:
        """The smallest batch that holds that many chains."""
        return next(size for size in self.seconds if size >= chains)


class Slots:
    """Preallocated states, settings and noise of up to `profile.buckets[-1]` chains of [C, H, W].

    Args:
        profile: batch sizes and the steps of a quantum in each; a quantum runs in the smallest bucket that holds its
            chains, idle slots included.
    """

    def __init__(
        self,
        gradient: Gradient,
        shape: tuple[int, int, int],
        profile: Profile,
        device: torch.device,
        threads: ChainThreads,
    ) -> None:
        self.profile, self.device = profile, device
        self._gradient, self._threads = gradient, threads
        size, ahead = profile.buckets[-1], max(profile.quantum.values())
        self._x = torch.zeros(size, *shape, device=device)
        self._noise = torch.zeros(size, ahead, *shape, device=device)
        self._settings = torch.zeros(2, size, 1, *shape[1:], device=device)
        self._energies = torch.zeros(ahead, size, device=device)
        self._occupants: list[Chain | None] = [None] * size
        self._step: Callable[[slice, Tensor], Tensor] = self._move
        if device.type == "cuda":
            self._step = _GraphRunner(self._move, profile.buckets, torch.zeros(size, *shape, device=device), device)
        self._events: deque[torch.cuda.Event] = deque()

    def seat(self, chosen: Sequence[Chain]) -> None:
        """Put exactly these chains into the first slots; whoever loses its slot takes its state along."""
        wanted = set(map(id, chosen))
        for slot, chain in enumerate(self._occupants):
            if chain is not None and (id(chain) not in wanted or slot >= len(chosen)):
                self.leave(chain)
        free = (slot for slot in range(len(chosen)) if self._occupants[slot] is None)
        for chain in chosen:
            if chain.slot is None:
                self._enter(chain, next(free))

    def leave(self, chain: Chain) -> None:
        """Free the chain's slot and give the state back to it."""
        assert chain.slot is not None
        chain.state = self._x[chain.slot].clone()
        self._settings[:, chain.slot] = 0.0  # an idle slot stands still
        self._occupants[chain.slot], chain.slot = None, None

    def _enter(self, chain: Chain, slot: int) -> None:
        self._occupants[slot], chain.slot = chain, slot
        self._x[slot].copy_(chain.begin(self.device))
        step_size, drift_rate = self._settings
        preset, mask = chain.job.params.preset, chain.job.mask
        moving = 1.0 if mask is None else mask.to(self.device)
        step_size[slot], drift_rate[slot] = preset.step_size * moving, preset.drift_rate * moving

    def run(self, chains: Sequence[Chain], steps: int) -> None:
        """Advance the seated chains by `steps`: at most the bucket's quantum, and what each may run uninterrupted."""
        self.advance(self.profile.bucket(len(chains)), steps)
        for chain in chains:
            assert chain.slot is not None
            chain.advance(self._energies[:steps, chain.slot], self._x[chain.slot])

    def advance(self, bucket: int, steps: int) -> None:
        """Move the first `bucket` slots, whatever they hold, by `steps`; a CPU's cores run shares of them apart."""
        parts = shares(bucket, 1 if self.device.type == "cuda" else self._threads.count)
        self._threads.map(lambda part: self._run_share(part, steps), parts)
        if self.device.type == "cuda":
            self._keep_pace()

    def _run_share(self, share: slice, steps: int) -> None:
        for chain in self._occupants[share]:
            if chain is not None and chain.noise is not None:
                chain.noise.fill(self._noise[chain.slot, :steps])
        for number in range(steps):
            self._energies[number, share] = self._step(share, self._noise[share, number])

    def _move(self, share: slice, noise: Tensor) -> Tensor:
        """One step of some slots; the energy before it."""
        step_size, drift_rate = self._settings[:, share]
        x = self._x[share]
        moved, info = langevin_transition(self._gradient, x, step_size, drift_rate, lambda _: noise)
        x.copy_(moved)
        return info.energy

    def _keep_pace(self) -> None:
        """Let the host run ahead by one quantum at most, so that cancelling and measuring stay close to the device."""
        self._events.append(torch.cuda.Event())
        self._events[-1].record()
        if len(self._events) > 1:
            self._events.popleft().synchronize()


class _GraphRunner:
    """One captured CUDA graph a bucket, replayed for each step. Written to the book, and never run on a GPU here.

    A graph reads and writes fixed addresses: the slots' own tensors, and a buffer for the step's noise. It is captured
    while all step sizes are 0, so that the warm-up which capturing demands moves nothing.
    """

    def __init__(
        self, step: Callable[[slice, Tensor], Tensor], buckets: Sequence[int], noise: Tensor, device: torch.device
    ) -> None:
        self._step, self._noise, self._device = step, noise, device
        self._graphs = {bucket: self._capture(bucket) for bucket in reversed(buckets)}

    def __call__(self, share: slice, noise: Tensor) -> Tensor:
        graph, energy = self._graphs[share.stop]
        self._noise[share].copy_(noise)
        graph.replay()
        return energy

    def _capture(self, bucket: int) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        side = torch.cuda.Stream(self._device)
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            for _ in range(CAPTURE_WARM_UP):
                self._step(slice(bucket), self._noise[:bucket])
        torch.cuda.current_stream(self._device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            energy = self._step(slice(bucket), self._noise[:bucket])
        return graph, energy
