"""Chains seen along the way: one run of the longest ones answers for every shorter length and every rule of stopping.

A chain that stops early is a prefix of the one that does not, because its noise does not depend on how long it runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.console import progress_bar
from models.langevin import LangevinConfig, LangevinInfo
from models.noise import SeededNoise
from models.purifier import PurifiedClassifier, chain_batches, split_replicates
from models.settling import WINDOW, has_settled


@dataclass(frozen=True)
class Walks:
    """N = R * B chains, replicate-major.

    Args:
        steps: after how many steps they were classified, ascending.
        logits: [len(steps), N, K].
        energies: [most steps, N], before each step.
        replicates: R.
    """

    steps: tuple[int, ...]
    logits: Tensor
    energies: Tensor
    replicates: int

    def stops(self, num_steps: int, settle: float | None) -> Tensor:
        """int64 [R, B]: how many steps each chain runs."""
        counts = torch.full((self.energies.shape[1],), num_steps)
        if settle is not None:
            for end in range(num_steps // WINDOW * WINDOW, WINDOW, -WINDOW):
                counts[has_settled(self.energies[end - 2 * WINDOW : end], settle)] = end
        return split_replicates(counts, self.replicates)

    def logits_after(self, stops: Tensor) -> Tensor:
        """[R, B, K], each chain's after its own number of steps, from `stops`."""
        rows = torch.searchsorted(torch.tensor(self.steps), stops.flatten())
        return split_replicates(self.logits[rows, torch.arange(len(rows))], self.replicates)


@torch.no_grad()
def walk(
    defence: PurifiedClassifier,
    images: Tensor,
    sampler: LangevinConfig,
    lengths: Sequence[int],
    replicates: int,
    seed: int,
) -> Walks:
    """Chains of the longest of `lengths`, classified after each of them and after each window of steps.

    Args:
        images: [B, C, H, W] in [-1, 1].
    """
    most = max(lengths)
    steps = tuple(sorted({*lengths, *range(WINDOW, most + 1, WINDOW)}))
    sampler = sampler.model_copy(update={"num_steps": most, "settle": None})
    noise = SeededNoise(torch.Generator(images.device).manual_seed(seed))
    logits, energies = [], []
    title = f"step size {sampler.step_size:g}, T {sampler.temperature:g} (image-steps)"
    with progress_bar(title, len(images) * replicates * most) as progress:
        for batch in chain_batches(images, replicates):
            passed: list[Tensor] = []
            before: list[Tensor] = []

            def record(
                step: int,
                state: Tensor,
                info: LangevinInfo,
                passed: list[Tensor] = passed,
                before: list[Tensor] = before,
            ) -> None:
                progress.advance(progress.task_ids[0], len(state))
                before.append(info.energy.cpu())
                if step + 1 in steps:
                    passed.append(defence.classify(state).cpu())

            defence.purify(batch, sampler, noise, record)
            logits.append(torch.stack(passed))
            energies.append(torch.stack(before))
    return Walks(steps, torch.cat(logits, 1), torch.cat(energies, 1), replicates)
