"""Clean and transfer accuracy against steps, step size, temperature and replicates, to choose presets by.

Chains that stop earlier are prefixes of the longest, and fewer replicates are a subset of the most, so one run of the
longest chains answers for every length, rule of stopping and number of replicates: these numbers share their noise. An
attack that knows the defence is dear, and made only on the chains that no other setting beats in clean accuracy,
transfer and cost.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from attacks_eval.baseline import attack_bare_classifier
from attacks_eval.defence import Defence
from attacks_eval.errors import QuestionError
from attacks_eval.pgd import PGD
from attacks_eval.results import read_result, write_result
from attacks_eval.threat_model import ThreatModel
from attacks_eval.walks import Walks, walk
from attacks_eval.white_box import TITLE, white_box_accuracy
from attacks_eval.workers import Workers
from models.bundle import Bundle
from models.card_measurements import undominated
from models.evaluation.accuracy import accuracy
from models.evaluation.sample import LabelledImages
from models.langevin import LangevinConfig
from models.pixels import to_unit


def run_trade_off(
    bundle: Bundle,
    taken: LabelledImages,
    samplers: Sequence[LangevinConfig],
    lengths: Sequence[int],
    settles: Sequence[float],
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
        settles: thresholds of settling to try, besides none.
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
        "settle": list(settles),
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
        both = [
            walk(bundle.defence, batch, sampler, lengths, max(replicates), seed + 1 + offset)
            for offset, batch in enumerate((images, attacked))
        ]
        for length, settle, r in itertools.product(lengths, (None, *settles), replicates):
            row = {**key, "num_steps": length, "settle": settle, "replicates": r}
            measured.append(row | _measure(both, length, settle, r, labels.cpu()))
        write_result(out, result)
    if white_box_images:
        _attack_front(bundle, taken, result, white_box_images, threat, workers, seed, out)
    return result


def _measure(
    both: Sequence[Walks], length: int, settle: float | None, replicates: int, labels: Tensor
) -> dict[str, Any]:
    """Accuracies, and the image-steps that an image costs on average: a clean one, and an attacked one."""
    found: dict[str, Any] = {}
    for name, cost, walks in zip(("clean", "transfer"), ("image_steps", "attacked_image_steps"), both, strict=True):
        stops = walks.stops(length, settle)
        found[name] = accuracy(walks.logits_after(stops)[:replicates].mean(0), labels).as_json()
        found[cost] = round(float(stops[:replicates].sum(0).float().mean()), 1)
    return found


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
            chain = {key: row[key] for key in ("num_steps", "settle", "step_size", "temperature")}
            if any(each.items() >= chain.items() for each in measured):
                continue
            defence = Defence.of(bundle.defence, preset.model_copy(update=chain))
            held, gradient = white_box_accuracy(defence, images, labels, threat, seed, pool)
            measured.append({**chain, "attack": TITLE, "gradient": gradient, "held": held.as_json()})
            write_result(out, result)
