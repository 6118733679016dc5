"""What `suspicion` is worth where a service refuses to answer above a threshold of it, against three senders.

Clean images; PGD on the bare classifier, by an attacker who knows nothing of `suspicion`; and the choice of one who
does: of PGD images of several parts of the budget, each image's least suspicious one among those that the defence gets
wrong, asked by the attacker with noise of his own. No gradient of `suspicion` is followed: an attacker may do better.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attacks_eval.baseline import attack_bare_classifier
from attacks_eval.errors import QuestionError
from attacks_eval.pgd import PGD
from attacks_eval.results import read_result, write_result
from attacks_eval.shares import share
from attacks_eval.threat_model import ThreatModel
from models.bundle import Bundle
from models.calibration import Calibration
from models.console import progress_bar
from models.evaluation.calibrate import answers_and_signals
from models.evaluation.sample import LabelledImages

THRESHOLDS = (0.9, 0.95, 0.99)
SHARES_OF_BUDGET = (0.25, 0.375, 0.5, 0.75, 1.0)
ATTACKERS_NOISE, JUDGES_NOISE = 1, 2


def run_refusing(
    bundle: Bundle, taken: LabelledImages, threat: ThreatModel, config: PGD, seed: int, out: Path, command: str
) -> dict[str, Any]:
    """Measure the default preset and write `out`; raises QuestionError for a preset that is not calibrated."""
    name = bundle.manifest.default_preset
    calibration = bundle.manifest.calibration.get(name)
    if calibration is None:
        raise QuestionError(f"{bundle.manifest.name}: preset {name} has no calibration, so nothing has a suspicion")
    question = {
        "kind": "refusing",
        "weights": bundle.manifest.weights_digest,
        "preset": bundle.defence.preset.model_dump(),
        "data": taken.name,
        "first": taken.first,
        "images": len(taken.images),
        "seed": seed,
        "threat": {**threat.model_dump(), **config.model_dump(include={"steps", "attack_step", "random_start"})},
    }
    result = read_result(out, question, command) | {"bundle": bundle.digest}
    if "senders" not in result:
        candidates = [_crafted(bundle, taken, threat, config, part, seed) for part in SHARES_OF_BUDGET]
        sent = {
            "clean": taken.images,
            "unaware": candidates[-1],
            "aware": _least_suspicious(bundle, calibration, candidates, taken.labels, seed + ATTACKERS_NOISE),
        }
        result["senders"] = {
            sender: _rows(*_asked(bundle, calibration, images, seed + JUDGES_NOISE), taken.labels)
            for sender, images in sent.items()
        }
        write_result(out, result)
    return result


def _crafted(bundle: Bundle, taken: LabelledImages, threat: ThreatModel, config: PGD, part: float, seed: int) -> Tensor:
    """PGD images [B, C, H, W] in [-1, 1] of a part of the budget, with steps as much smaller."""
    smaller = threat.model_copy(update={"budget": part * threat.budget})
    step = None if config.attack_step is None else part * config.attack_step
    config = config.model_copy(update={"attack_step": step})
    return attack_bare_classifier(bundle.defence, taken.images, taken.labels, smaller, config, seed)


def _asked(bundle: Bundle, calibration: Calibration, images: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """What one request about each image answers: its label [B], and its suspicion [B]."""
    preset = bundle.defence.preset
    total = len(images) * preset.replicates * preset.num_steps
    with progress_bar("asking (image-steps)", total) as progress:
        advance = partial(progress.advance, progress.task_ids[0])
        logits, signals = answers_and_signals(bundle.defence, images, preset, seed, advance)
    return logits.mean(0).argmax(1).cpu(), calibration.suspicion(signals)


def _least_suspicious(
    bundle: Bundle, calibration: Calibration, candidates: Sequence[Tensor], labels: Tensor, seed: int
) -> Tensor:
    """Of each image's candidates the least suspicious that is wrong, or the last where none is, [B, C, H, W]."""
    suspicions = []
    for images in candidates:
        answers, suspicion = _asked(bundle, calibration, images, seed)
        suspicions.append(torch.where(answers == labels.cpu(), 2.0, suspicion))
    best = torch.stack(suspicions).min(0)
    chosen = torch.where(best.values > 1.0, len(candidates) - 1, best.indices)
    return torch.stack([candidates[pick][row] for row, pick in enumerate(chosen.tolist())])


def _rows(answers: Tensor, suspicion: Tensor, labels: Tensor) -> list[dict[str, Any]]:
    """By threshold: images answered, those of them that are right, and images that get a wrong answer."""
    right = answers == labels.cpu()
    rows = []
    for threshold in (*THRESHOLDS, None):
        answered = torch.ones_like(right) if threshold is None else suspicion <= threshold
        total, held = int(answered.sum()), int((answered & right).sum())
        rows.append(
            {
                "threshold": threshold,
                "answered": share(total, len(right)).model_dump(),
                "right_of_answered": share(held, total).model_dump() if total else None,
                "wrong": share(total - held, len(right)).model_dump(),
            }
        )
    return rows
