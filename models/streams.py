"""Randomness by name: each number is a function of what it is for, never of when or beside what it was drawn.

So the order of the images, the size of a batch and a resumed run change no verdict. The numbers come from Philox, a
counter-based generator (Salmon et al. 2011), the same on every device.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.noise import Noise

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
        name = "/".join(f"{type(part).__name__}:{part}" for part in self.path).encode()
        key = int.from_bytes(hashlib.blake2b(name, digest_size=16).digest(), "little")
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, block]))

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
        self._generator = stream.generator()
        self._device: torch.Generator | None = None
        if device.type != "cpu":
            seed = int(self._generator.integers(2**63))
            self._device = torch.Generator(device).manual_seed(seed)

    def fill(self, out: Tensor) -> None:
        """Overwrite `out`, a contiguous float32 tensor on the source's device."""
        if self._device is None:
            self._generator.standard_normal(out=out.numpy(), dtype=np.float32)
        else:
            out.normal_(generator=self._device)


class ChainNoise:
    """The Langevin noise of a batch of chains, one stream each; `at(step)` may be asked in any order.

    Chains beyond the streams (the padding of a batch) get zeros.
    """

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.streams = tuple(streams)
        self._block, self._drawn = -1, np.empty(0, dtype=np.float32)

    def at(self, step: int, like: Tensor) -> Tensor:
        """The noise of one step, of the shape, dtype and device of `like` [N, ...], N >= the number of streams."""
        block, offset = divmod(step, BLOCK)
        shape = (len(like), BLOCK, *like.shape[1:])
        if block != self._block or self._drawn.shape != shape:
            self._drawn = np.zeros(shape, dtype=np.float32)
            for row, stream in enumerate(self.streams):
                stream.generator(block).standard_normal(out=self._drawn[row], dtype=np.float32)
            self._block = block
        return torch.from_numpy(self._drawn[:, offset]).to(like)

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
        return [NoiseSequence(ChainNoise(self._noise.streams[part])) for part in parts]
