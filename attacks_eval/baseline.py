"""The first questions to ask of a defence: clean accuracy, and accuracy on images attacked without knowing of it.

PGD attacks the bare classifier; the very same images then go through the defence (a transfer attack). It is the
weakest of attacks on a purifier, so these numbers are an upper bound on what a knowing attacker would leave.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attacks_eval.pgd import PGDConfig, pgd
from attacks_eval.results import read_result, write_result
from attacks_eval.threat_model import ThreatModel
from models.bundle import Bundle
from models.console import console, progress_bar
from models.data import ImageDataset
from models.errors import DataError
from models.evaluation.accuracy import accuracy, bare_logits, purified_logits
from models.pixels import from_uint8, from_unit, to_uint8, to_unit
from models.purifier import Preset, PurifiedClassifier, agreement

ATTACK_BATCH = 250


def attack_bare_classifier(
    defence: PurifiedClassifier, images: Tensor, labels: Tensor, threat: ThreatModel, config: PGDConfig, seed: int
) -> Tensor:
    """PGD images [B, C, H, W] in [-1, 1], rounded to the 256 levels that a file can hold, still inside the budget."""
    generator = torch.Generator(images.device).manual_seed(seed)
    attacked = []
    with progress_bar(f"PGD-{config.steps} on the bare classifier", len(images)) as progress:
        for clean, label in zip(images.split(ATTACK_BATCH), labels.split(ATTACK_BATCH), strict=True):
            unit = to_unit(clean).clamp(0.0, 1.0)
            adversarial = pgd(lambda x: defence.classify(from_unit(x)), unit, label, threat, config, generator)
            attacked.append(from_uint8(to_uint8(from_unit(adversarial))))
            progress.advance(progress.task_ids[0], len(clean))
    return torch.cat(attacked)


def run_baseline(
    bundle: Bundle,
    data: ImageDataset,
    count: int,
    presets: Sequence[str],
    threat: ThreatModel,
    config: PGDConfig,
    seed: int,
    out: Path,
    command: str,
) -> dict[str, Any]:
    """Measure on the first `count` images and write `out` after each preset, so that an interrupted run resumes."""
    if not 0 < count <= len(data):
        raise DataError(f"images must be between 1 and {len(data)} (the size of {data.name}), got {count}")
    chosen = {name: bundle.manifest.preset(name) for name in presets}
    device = next(bundle.defence.parameters()).device
    images, labels = from_uint8(data.images[:count]).to(device), data.labels[:count].to(device)
    question = {
        "kind": "baseline",
        "bundle": bundle.digest,
        "data": data.name,
        "images": count,
        "seed": seed,
        "threat": {**threat.model_dump(), **config.model_dump()},
    }
    result = read_result(out, question, command)
    attacked = attack_bare_classifier(bundle.defence, images, labels, threat, config, seed)
    result["bare"] = {
        "clean": accuracy(bare_logits(bundle.defence, images), labels).as_json(),
        "attacked": accuracy(bare_logits(bundle.defence, attacked), labels).as_json(),
    }
    measured = result.setdefault("presets", {})
    for name, preset in chosen.items():
        if name not in measured:
            measured[name] = _measure_preset(bundle.defence, name, preset, images, attacked, labels, seed)
            write_result(out, result)
    write_result(out, result)
    return result


def _measure_preset(
    defence: PurifiedClassifier,
    name: str,
    preset: Preset,
    images: Tensor,
    attacked: Tensor,
    labels: Tensor,
    seed: int,
) -> dict[str, Any]:
    row: dict[str, Any] = {"preset": preset.model_dump()}
    start = time.perf_counter()
    total = 2 * len(images) * preset.replicates * preset.num_steps
    with progress_bar(f"{name} (image-steps)", total) as progress:
        task = progress.task_ids[0]
        for offset, (key, batch) in enumerate((("clean", images), ("transfer", attacked))):
            logits = purified_logits(defence, batch, preset, seed + 1 + offset, lambda n: progress.advance(task, n))
            row[key] = accuracy(logits.mean(0), labels).as_json()
            row[f"{key}_agreement"] = round(float(agreement(logits).mean()), 4)
    row["image_steps"], row["seconds"] = total, round(time.perf_counter() - start, 1)
    console.print(f"{name}: clean {row['clean']['accuracy']:.3f}, transfer {row['transfer']['accuracy']:.3f}")
    return row
