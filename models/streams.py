"""Randomness by name: each number is a function of what it is for, never of when or beside what it was drawn.

So the order of the images, the size of a batch and a resumed run change no verdict. Single numbers come from Philox, a
counter-based generator (Salmon et al. 2011). Langevin noise, of which every step needs an image's worth, comes from
PyTorch's Mersenne twister, which fills tensors three times as fast; its whole state is derived from the name.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.noise import Noise

TWISTER_WORDS, TWISTER_OFFSET = 624, 24
"""Of the Mersenne twister in the state of a torch.Generator on the CPU: its size, and where its words begin."""
# Steps of noise drawn at a time: fewer calls, and any block of a long chain can be drawn again alone.
BLOCK = 16


@dataclass(frozen=True)
class Stream:
    """One stream of random numbers, named by a path such as (seed, "pgd", image, step, replicate)."""

    path: tuple[int | str, ...]

    def child(self, *names: int | str) -> "Stream":
        """The stream of a part of what this one is for."""
        return Stream((*self.path, *names))

    def generator(self, block: int = 0) -> np.random.Generator:
        """A generator at the start of the given block; blocks do not overlap."""
        key = int.from_bytes(hashlib.blake2b(self._name(), digest_size=16).digest(), "little")
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, block]))

    def noise_generator(self, block: int = 0) -> torch.Generator:
        """A generator of PyTorch on the CPU at the start of the given block; no two blocks or streams are related."""
        words = np.frombuffer(hashlib.shake_256(self._name(block)).digest(4 * TWISTER_WORDS), dtype="<u4")
        state = torch.Generator().get_state()  # seed, counters, then the words in 64 bits each, to be twisted first
        state.numpy()[TWISTER_OFFSET : TWISTER_OFFSET + 8 * TWISTER_WORDS].view("<u8")[:] = words
        generator = torch.Generator()
        generator.set_state(state)
        return generator

    def _name(self, block: int | None = None) -> bytes:
        path = self.path if block is None else (*self.path, block)
        return "/".join(f"{type(part).__name__}:{part}" for part in path).encode()

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Uniform on [0, 1), float32, on the CPU."""
        return torch.from_numpy(self.generator().random(tuple(shape), dtype=np.float32))

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal, float32, on the CPU."""
        return torch.from_numpy(self.generator().standard_normal(tuple(shape), dtype=np.float32))


class NoiseSource:
    """Standard normal numbers of one stream, drawn one after another straight into a tensor.

    On a CPU they are the stream's own; on another device they come from that device's generator, seeded with the
    stream's name, so that nothing crosses the bus. How many are drawn at a time changes nothing on a CPU.
    """

    def __init__(self, stream: Stream, device: torch.device) -> None:
        self._generator = stream.noise_generator()
        if device.type != "cpu":
            seed = int(stream.generator().integers(2**63))
            self._generator = torch.Generator(device).manual_seed(seed)

    def fill(self, out: Tensor) -> None:
        """Overwrite `out` [steps, ...], a contiguous float32 tensor on the source's device."""
        if out.device.type == "cpu":
            _fill(out, self._generator)
        else:
            out.normal_(generator=self._generator)


class ChainNoise:
    """The Langevin noise of a batch of chains, one stream each; `at(step)` may be asked in any order.

    Chains beyond the streams (the padding of a batch) get zeros.
    """

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.streams = tuple(streams)
        self._block, self._drawn = -1, torch.empty(0)

    def at(self, step: int, like: Tensor) -> Tensor:
        """The noise of one step, of the shape, dtype and device of `like` [N, ...], N >= the number of streams."""
        block, offset = divmod(step, BLOCK)
        shape = (len(like), BLOCK, *like.shape[1:])
        if block != self._block or self._drawn.shape != shape:
            self._drawn = torch.zeros(shape)
            for row, stream in enumerate(self.streams):
                _fill(self._drawn[row], stream.noise_generator(block))
            self._block = block
        return self._drawn[:, offset].to(like)

    def rows(self, part: slice) -> "ChainNoise":
        """The noise of some of the chains, which does not depend on the others."""
        return ChainNoise(self.streams[part])

    def sequence(self) -> "NoiseSequence":
        """The noise of steps 0, 1, 2, ... at successive calls, as the sampler takes it."""
        return NoiseSequence(self)


class NoiseSequence:
    """A chains' noise, one step after another."""

    def __init__(self, noise: ChainNoise) -> None:
        self._noise, self._step = noise, -1

    def __call__(self, x: Tensor) -> Tensor:
        self._step += 1
        return self._noise.at(self._step, x)

    def divide(self, parts: Sequence[slice]) -> Sequence[Noise]:
        """Each chain has its own stream already."""
        return [NoiseSequence(self._noise.rows(part)) for part in parts]


def _fill(out: Tensor, generator: torch.Generator) -> None:
    """Standard normal numbers [steps, ...], step by step: PyTorch draws a tensor of odd size unlike its halves."""
    for step in out:
        step.normal_(generator=generator)
