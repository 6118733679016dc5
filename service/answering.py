"""From a job's finished chains to its result: checks, the classifier in small batches, timings."""

import time
from collections.abc import Generator

import torch
from torch import Tensor

from models.pixels import from_uint8
from models.purifier import CHAINS_PER_BATCH, PurifiedClassifier
from service.errors import ChainDivergedError, EngineError
from service.jobs import Chain, Job, Result

Answer = Generator[int, None, Result]
"""Yields the size of each batch that it classified, so that chains run in between, and returns the result."""


def answer(job: Job, defence: PurifiedClassifier, device: torch.device) -> Answer:
    """The result of a job that has no steps left.

    Its batches hold images of this job alone: an answer does not depend, to the last bit, on the neighbours.

    Raises:
        ChainDivergedError: a chain is no longer finite.
        EngineError: the classifier's output is not.
    """
    assert job.started is not None
    assert job.purified is not None
    finals = torch.stack([chain.begin(device) for chain in job.chains])
    drops = torch.stack([_energy_drop(chain) for chain in job.chains[: job.params.preset.replicates]]).cpu()
    if not (finals.isfinite().all() and drops.isfinite().all()):
        raise ChainDivergedError(
            f"a chain left the finite numbers within {job.params.preset.num_steps} steps; nothing is returned"
        )
    energy = job.chains[0].first_energy
    classify_seconds = 0.0
    logits = undefended = smoothed = None
    if job.params.classify:
        rows = torch.cat([finals, from_uint8(job.image.to(device)).unsqueeze(0)])
        outputs: list[Tensor] = []
        for batch in rows.split(CHAINS_PER_BATCH):
            began = time.perf_counter()
            outputs.append(defence.classify(batch.contiguous(memory_format=torch.channels_last)).cpu())
            classify_seconds += time.perf_counter() - began
            yield len(batch)
        logits, smoothed, undefended = _shares(torch.cat(outputs), job)
    return Result(
        finals[: job.params.preset.replicates].cpu(),
        logits,
        undefended,
        smoothed,
        None if energy is None else energy.cpu(),
        drops,
        torch.tensor([chain.done for chain in job.chains[: job.params.preset.replicates]]),
        queue_seconds=job.started - job.submitted,
        purify_seconds=job.purified - job.started,
        classify_seconds=classify_seconds,
    )


def _shares(outputs: Tensor, job: Job) -> tuple[Tensor, Tensor, Tensor]:
    """The replicates' rows, the noisy draws', and the bare image's."""
    if not outputs.isfinite().all():
        raise EngineError("the classifier's output is not finite for this image")
    replicates = job.params.preset.replicates
    return outputs[:replicates], outputs[replicates:-1], outputs[-1]


def _energy_drop(chain: Chain) -> Tensor:
    if chain.first_energy is None or chain.last_energy is None:
        return torch.zeros(())
    return chain.first_energy - chain.last_energy
