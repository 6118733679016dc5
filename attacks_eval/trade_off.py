"""Clean and transfer accuracy against steps, step size, temperature and replicates, to choose presets by.

Chains of every length are prefixes of the longest, and fewer replicates are a subset of the most, so one run of the
longest chains answers for a whole row of the grid; the numbers along a row share their noise. An attack that knows the
defence is dear, and made only on the chains that no other setting beats in clean, transfer and cost.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attacks_eval.baseline import attack_bare_classifier
from attacks_eval.defence import Defence
from attacks_eval.errors import QuestionError
from attacks_eval.pgd import PGD
from attacks_eval.results import read_result, write_result
from attacks_eval.threat_model import ThreatModel
from attacks_eval.white_box import TITLE, white_box_accuracy
from attacks_eval.workers import Workers
from models.bundle import Bundle
from models.console import progress_bar
from models.evaluation.accuracy import accuracy
from models.evaluation.sample import LabelledImages
from models.langevin import LangevinConfig, LangevinInfo
from models.model_card import undominated
from models.noise import SeededNoise
from models.pixels import to_unit
from models.purifier import PurifiedClassifier, chain_batches, split_replicates


def run_trade_off(
    bundle: Bundle,
    taken: LabelledImages,
    samplers: Sequence[LangevinConfig],
    lengths: Sequence[int],
    replicates: Sequence[int],
    threat: ThreatModel,
    config: PGD,
    white_box_images: int,
    workers: int,
    seed: int,
    out: Path,
    command: str,
) -> dict[str, Any]:
    """Measure on `taken` and write `out` after each sampler and each white-box attack; an interrupted run resumes.

    Args:
        samplers: step sizes and temperatures to try; their num_steps is ignored.
        lengths: numbers of steps, ascending.
        white_box_images: the first so many images are attacked with knowledge of the defence; 0 leaves that out.
        workers: processes that those attacks search in.
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
        "white_box_images": white_box_images,
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
    if white_box_images:
        _attack_front(bundle, taken, result, white_box_images, threat, workers, seed, out)
    return result


def _attack_front(
    bundle: Bundle,
    taken: LabelledImages,
    result: dict[str, Any],
    count: int,
    threat: ThreatModel,
    workers: int,
    seed: int,
    out: Path,
) -> None:
    """Measure each chain of the front; whoever averages more replicates of it has the same chain."""
    images, labels = to_unit(taken.images[:count]), taken.labels[:count]
    measured = result.setdefault("white_box", [])
    preset = bundle.defence.preset
    with Workers(workers, images.device) as pool:
        for row in undominated(result["rows"]):
            chain = {key: row[key] for key in ("num_steps", "step_size", "temperature")}
            if any(each.items() >= chain.items() for each in measured):
                continue
            defence = Defence.of(bundle.defence, preset.model_copy(update=chain))
            held, gradient = white_box_accuracy(defence, images, labels, threat, seed, pool)
            measured.append({**chain, "attack": TITLE, "gradient": gradient, "held": held.as_json()})
            write_result(out, result)


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
