"""Clean and transfer accuracy against steps, step size, temperature and replicates, to choose presets by.

Chains of every length are prefixes of the longest, and fewer replicates are a subset of the most, so one run of the
longest chains answers for a whole row of the grid; the numbers along a row share their noise.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attacks_eval.baseline import attack_bare_classifier
from attacks_eval.errors import QuestionError
from attacks_eval.pgd import PGD
from attacks_eval.results import read_result, write_result
from attacks_eval.threat_model import ThreatModel
from models.bundle import Bundle
from models.console import progress_bar
from models.evaluation.accuracy import accuracy
from models.evaluation.sample import LabelledImages
from models.langevin import LangevinConfig, LangevinInfo
from models.noise import SeededNoise
from models.purifier import PurifiedClassifier, chain_batches, split_replicates


def run_trade_off(
    bundle: Bundle,
    taken: LabelledImages,
    samplers: Sequence[LangevinConfig],
    lengths: Sequence[int],
    replicates: Sequence[int],
    threat: ThreatModel,
    config: PGD,
    seed: int,
    out: Path,
    command: str,
) -> dict[str, Any]:
    """Measure on `taken` and write `out` after each sampler; an interrupted run resumes.

    Args:
        samplers: step sizes and temperatures to try; their num_steps is ignored.
        lengths: numbers of steps, ascending.
    """
    if len(set(lengths)) < len(lengths) or len(set(replicates)) < len(replicates):
        raise QuestionError(f"steps {list(lengths)} and replicates {list(replicates)} must not repeat a value")
    images, labels = taken.images, taken.labels
    question = {
        "kind": "trade_off",
        "weights": bundle.manifest.weights_digest,
        "data": taken.name,
        "first": taken.first,
        "images": len(images),
        "steps": list(lengths),
        "replicates": list(replicates),
        "precision": bundle.defence.preset.precision,
        "seed": seed,
        "threat": {**threat.model_dump(), **config.model_dump(include={"steps", "attack_step", "random_start"})},
    }
    result = read_result(out, question, command)
    measured = result.setdefault("rows", [])
    attacked = attack_bare_classifier(bundle.defence, images, labels, threat, config, seed)
    for sampler in samplers:
        key = {"step_size": sampler.step_size, "temperature": sampler.temperature}
        if any(row.items() >= key.items() for row in measured):
            continue
        longest = sampler.model_copy(update={"num_steps": max(lengths)})
        both = [
            logits_along_chains(bundle.defence, batch, longest, lengths, max(replicates), seed + 1 + offset)
            for offset, batch in enumerate((images, attacked))
        ]
        for index, length in enumerate(lengths):
            for r in replicates:
                clean, transfer = (accuracy(logits[index][:r].mean(0), labels).as_json() for logits in both)
                cost = {"num_steps": length, "replicates": r, "image_steps": length * r}
                measured.append({**key, **cost, "clean": clean, "transfer": transfer})
        write_result(out, result)
    return result


@torch.no_grad()
def logits_along_chains(
    defence: PurifiedClassifier,
    images: Tensor,
    sampler: LangevinConfig,
    lengths: Sequence[int],
    replicates: int,
    seed: int,
) -> Tensor:
    """Logits [lengths, R, B, K] of the states that chains pass after each of `lengths` steps."""
    noise = SeededNoise(torch.Generator(images.device).manual_seed(seed))
    along = []
    total = len(images) * replicates * sampler.num_steps
    with progress_bar(f"step size {sampler.step_size:g}, T {sampler.temperature:g} (image-steps)", total) as progress:
        for batch in chain_batches(images, replicates):
            passed: list[Tensor] = []

            def record(step: int, state: Tensor, _: LangevinInfo, passed: list[Tensor] = passed) -> None:
                progress.advance(progress.task_ids[0], len(state))
                if step + 1 in lengths:
                    passed.append(defence.classify(state))

            defence.purify(batch, sampler, noise, record)
            along.append(torch.stack(passed))
    return torch.stack([split_replicates(logits, replicates) for logits in torch.cat(along, dim=1)])
