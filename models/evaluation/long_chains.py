"""Chains of up to a million steps, with snapshots on the way: does long-run sampling stay with the data?

OUT/
  checkpoint.safetensors          states and traces at the last stop; replaced atomically
  snapshot-00000100.safetensors   states and energies after so many steps

Chains run in blocks. A block's noise is named by its first step, so a run that was killed continues from its last
checkpoint to the very numbers that it would have reached (on the same kind of device and as many cores).
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, model_validator
from safetensors.torch import save as save_safetensors
from torch import Tensor

from models.config import Frozen
from models.console import progress_bar
from models.errors import ChainDiverged, CheckpointError
from models.files import replace_file, sole_writer
from models.gradients import Energy
from models.kept import kept_tensors, require_same
from models.langevin import LangevinConfig, run_langevin
from models.noise import SeededNoise
from models.streams import Stream

CHECKPOINT = "checkpoint.safetensors"
CHECKPOINT_SECONDS = 120.0
ENERGY_BATCH = 250

Summarise = Callable[[Tensor, Tensor], Tensor]
"""States [N, ...] and energies in nats [N] to summaries [N, S]."""


class LongChains(Frozen):
    """How long chains run.

    Args:
        block: the sampler; its `num_steps` are run between two stops, where a run may be interrupted.
        snapshots: ascending numbers of steps after which states are kept; the last one ends the run.
        record_every: steps between two points of the trace.
    """

    block: LangevinConfig
    snapshots: tuple[int, ...] = Field(min_length=1)
    record_every: int = Field(ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _at_stops(self) -> "LongChains":
        if self.block.num_steps < 1:
            raise ValueError("block.num_steps must be at least 1, got 0")
        if list(self.snapshots) != sorted(set(self.snapshots)) or self.snapshots[0] < 1:
            raise ValueError(f"snapshots must ascend from at least 1, got {list(self.snapshots)}")
        if off := [step for step in (*self.snapshots, self.record_every) if step % self.block.num_steps]:
            raise ValueError(f"snapshots and record_every must be multiples of {self.block.num_steps} steps, got {off}")
        return self


@dataclass(frozen=True)
class Snapshot:
    """States [N, C, H, W] after `step` steps and their energies in nats [N], on the CPU."""

    step: int
    states: Tensor
    energies: Tensor


@dataclass(frozen=True)
class _Progress:
    """What a checkpoint holds; `trace` has a row of summaries [N, S] for step 0 and each multiple of record_every."""

    step: int
    states: Tensor
    trace: list[Tensor]
    cpu_seconds: float = 0.0


def run_chains(
    energy: Energy,
    start: Tensor,
    config: LongChains,
    summarise: Summarise,
    folder: Path,
    identity: Mapping[str, Any],
) -> Tensor:
    """Run to the last snapshot, from `folder`'s checkpoint if it has one; returns the trace [R + 1, N, S].

    Args:
        energy: the chains target exp(-energy / config.block.temperature).
        start: [N, C, H, W] in [-1, 1], on the device that is to run them.
        identity: what else decides the result; plain values. A checkpoint of another run is refused.

    Raises:
        CheckpointError: the folder holds another run, or passed a step that is now asked for as a snapshot.
        ChainDiverged: an energy is no longer finite; the checkpoint before it is kept.
        FolderInUse: another program runs chains in it.
    """
    whole = json.loads(json.dumps({**identity, **config.model_dump(exclude={"snapshots"}), "chains": len(start)}))
    with sole_writer(folder):
        now = _restore(folder, whole, config.snapshots, start.device)
        if now is None:
            now = _Progress(0, start, [summarise(start, nats(energy, start, config.block.temperature))])
        saved_at = time.monotonic()
        with progress_bar("chain steps", config.snapshots[-1], now.step) as progress:
            try:
                while now.step < config.snapshots[-1]:
                    began = time.process_time()
                    moved = _advance(now, energy, config, summarise, folder)
                    now = replace(moved, cpu_seconds=now.cpu_seconds + time.process_time() - began)
                    progress.advance(progress.task_ids[0], config.block.num_steps)
                    if now.step in config.snapshots or time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                        _save(folder, now, whole)
                        saved_at = time.monotonic()
            except KeyboardInterrupt:
                _save(folder, now, whole)
                raise
        return torch.stack(now.trace[: config.snapshots[-1] // config.record_every + 1])


def _advance(now: _Progress, energy: Energy, config: LongChains, summarise: Summarise, folder: Path) -> _Progress:
    """One block, and the snapshot at its end when one is due."""
    device = now.states.device
    seed = int(Stream((config.seed, "long chains", now.step)).generator().integers(2**63))
    noise = SeededNoise(torch.Generator(device).manual_seed(seed))
    states = run_langevin(energy, now.states, config.block, randn_like=noise)[0].contiguous()
    step, trace = now.step + config.block.num_steps, now.trace
    if step in config.snapshots or step % config.record_every == 0:
        energies = nats(energy, states, config.block.temperature)
        if not bool(energies.isfinite().all()):
            chain = int((~energies.isfinite()).nonzero()[0])
            raise ChainDiverged(f"chain {chain} has energy {float(energies[chain])} at step {step}: shorten its step")
        if step % config.record_every == 0:
            trace = [*trace, summarise(states, energies)]
        if step in config.snapshots:
            tensors = {"states": states.cpu(), "energies": energies.cpu()}
            content = save_safetensors(tensors, {"step": str(step)})
            replace_file(snapshot_path(folder, step), content)
    return _Progress(step, states, trace)


@torch.no_grad()
def nats(energy: Energy, states: Tensor, temperature: float) -> Tensor:
    """energy / temperature of each state, [N] in float32; large batches in parts."""
    return torch.cat([energy(batch).float() for batch in states.split(ENERGY_BATCH)]) / temperature


def snapshot_path(folder: Path, step: int) -> Path:
    """Where the states after `step` steps are kept."""
    return folder / f"snapshot-{step:08d}.safetensors"


def read_snapshot(path: Path) -> Snapshot:
    """A snapshot; raises CheckpointError when the file is not one."""
    kept = kept_tensors(path, ("states", "energies"), "a snapshot")
    if kept is None or "step" not in kept[1]:
        raise CheckpointError(f"{path} holds no snapshot: it is missing, or does not say its step")
    return Snapshot(int(kept[1]["step"]), kept[0]["states"], kept[0]["energies"])


def spent_seconds(folder: Path) -> float:
    """CPU seconds that the chains in `folder` have taken, in all sessions; 0 where there are none."""
    kept = kept_tensors(folder / CHECKPOINT, ("trace",), "long chains")
    return _seconds(kept[1]) if kept else 0.0


def _seconds(metadata: Mapping[str, str]) -> float:
    return float(metadata.get("cpu_seconds", "0"))


def _save(folder: Path, now: _Progress, identity: Mapping[str, Any]) -> None:
    tensors = {"states": now.states.cpu(), "trace": torch.stack(now.trace)}
    metadata = {"step": str(now.step), "identity": json.dumps(identity), "cpu_seconds": f"{now.cpu_seconds:.1f}"}
    replace_file(folder / CHECKPOINT, save_safetensors(tensors, metadata))


def _restore(
    folder: Path, identity: Mapping[str, Any], snapshots: tuple[int, ...], device: torch.device
) -> _Progress | None:
    kept = kept_tensors(folder / CHECKPOINT, ("states", "trace"), "long chains")
    if kept is None:
        return None
    tensors, metadata = kept
    require_same(folder / CHECKPOINT, json.loads(metadata.get("identity", "{}")), identity)
    step = int(metadata["step"])
    if missed := [each for each in snapshots if each <= step and not snapshot_path(folder, each).exists()]:
        raise CheckpointError(f"{folder} is at step {step} and kept no snapshot at {missed}; choose another folder")
    return _Progress(step, tensors["states"].to(device), list(tensors["trace"]), _seconds(metadata))
