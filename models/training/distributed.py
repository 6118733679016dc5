"""One training spread over several processes, as `torchrun` starts them: chains split, weights repeated.

An update costs about a hundred steps of Langevin dynamics on every chain, and one step of learning. So each process
moves its share of the chains, and everything small is repeated: weights, optimizer, ages, random generators. Draws are
made for the whole batch by every process, which then uses its own rows: so an update is the one that a single process
makes, and a run may go on with another number of processes. Gradients are added up in one flat all-reduce; sharding
weights (FSDP) would save megabytes and cost a transfer at each Langevin step.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # early: see `joined_world`
from torch import Tensor, nn

from models.console import console
from models.errors import ConfigError, TrainingDiverged
from models.noise import Noise, SeededNoise


@dataclass(frozen=True)
class World:
    """This process's place among `size` that train together; the default is a process of its own."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes the run's files and speaks for all."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This process's rows of a tensor [count, ...]; the shares differ by one row at most."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of every process's tensor, the same bits on each."""
        if self.size > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def join(self, rows: Tensor, count: int) -> Tensor:
        """The whole [count, ...] from each process's share of the rows."""
        if self.size == 1:
            return rows
        whole = rows.new_zeros(count, *rows.shape[1:])
        whole[self.share(count)] = rows
        return self.sum(whole)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, total in zip(gradients, flat.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(total.view_as(gradient))

    def check_identical(self, tensors: Iterable[Tensor], update: int) -> None:
        """Raise TrainingDiverged where any process's tensors differ from the first one's by a bit."""
        if self.size == 1:
            return
        own = torch.cat([tensor.detach().flatten().float() for tensor in tensors])
        first = own.clone()
        dist.broadcast(first, 0)
        differing = self.sum(torch.tensor([float((own != first).sum())], device=own.device))
        if differing.item():
            raise TrainingDiverged(f"at update {update} {differing.item():.0f} weights differ from the first process's")


ALONE = World()


class ShardedRows:
    """A tensor [N, ...] of which each process holds its share of the rows; all of them read and write it together."""

    def __init__(self, rows: Tensor, count: int, world: World = ALONE) -> None:
        """`rows` are those of `world.share(count)`."""
        self.held, self._count, self._world, self._share = rows, count, world, world.share(count)

    @classmethod
    def of(cls, whole: Tensor, device: torch.device, dtype: torch.dtype, world: World = ALONE) -> "ShardedRows":
        """This process's share of a tensor that each process has whole."""
        rows = whole[world.share(len(whole))].to(device, dtype, copy=True)
        return cls(rows, len(whole), world)

    def __len__(self) -> int:
        return self._count

    def read(self, indices: Tensor) -> Tensor:
        """Rows `indices` [B] of the whole, [B, ...] on every process."""
        if self._world.size == 1:
            return self.held[indices]
        mine = self._mine(indices)
        # Only one process adds something other than zero, so the sum is exact.
        values = torch.zeros(len(indices), *self.held.shape[1:], device=self.held.device)
        values[mine] = self.held[indices[mine] - self._share.start].float()
        return self._world.sum(values).to(self.held.dtype)

    def write(self, indices: Tensor, values: Tensor) -> None:
        """Put values [B, ...], which every process has, in rows `indices` [B] of the whole."""
        mine = self._mine(indices)
        self.held[indices[mine] - self._share.start] = values[mine].to(self.held.dtype)

    def whole(self) -> Tensor:
        """All rows [N, ...], from process to process, so that a device never holds more than two shares."""
        if self._world.size == 1:
            return self.held
        parts = []
        for rank in range(self._world.size):
            share = World(rank, self._world.size).share(self._count)
            part = self.held.new_empty(share.stop - share.start, *self.held.shape[1:])
            if rank == self._world.rank:
                part.copy_(self.held)
            dist.broadcast(part, rank)
            parts.append(part.cpu())
        return torch.cat(parts)

    def _mine(self, indices: Tensor) -> Tensor:
        first, last = self._share.start, self._share.stop
        mine: Tensor = (indices >= first) & (indices < last)
        return mine


class NoiseOfShare:
    """The rows `world.share(total)` of the noise that one process would draw for `total` chains."""

    def __init__(self, noise: SeededNoise, total: int, world: World) -> None:
        self._noise, self._total, self._share = noise, total, world.share(total)

    def __call__(self, x: Tensor) -> Tensor:
        whole: Tensor = self._noise(x.new_empty(self._total, *x.shape[1:]))
        return whole[self._share]

    def divide(self, parts: Sequence[slice]) -> Sequence[Noise]:
        """See `DivisibleNoise`."""
        first, last = self._share.start, self._share.stop
        shifted = [slice(first + (part.start or 0), first + part.stop) for part in parts]
        return self._noise.divide([*shifted, slice(last, self._total)])[: len(parts)]


@contextmanager
def joined_world(device: torch.device) -> Iterator[tuple[World, torch.device]]:
    """This process's world and device: with `torchrun` that of its group (gloo, or NCCL with one GPU each).

    The group's threads must end with it: one that frees a tensor while the interpreter shuts down aborts the process.
    `torch.distributed.nn.functional`, which optimizers import, has the group of its import as default arguments, and
    would keep it alive; imported before there is a group, it holds none.
    """
    if not dist.is_torchelastic_launched():
        yield ALONE, device
        return
    on_gpu = device.type == "cuda"
    if on_gpu:
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise ConfigError(f"process {local} has no GPU of its own: {torch.cuda.device_count()} are available")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo", device_id=device if on_gpu else None)
    world = World(dist.get_rank(), dist.get_world_size())
    spoke = console.quiet
    console.quiet = spoke or not world.leads
    try:
        yield world, device
    finally:
        console.quiet = spoke
        dist.destroy_process_group()
