"""The first questions to ask of a defence: clean accuracy, and accuracy on images attacked without knowing of it.

PGD attacks the bare classifier; the very same images then go through the defence (a transfer attack). It is the
weakest of attacks on a purifier, so these numbers are an upper bound on what a knowing attacker would leave.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attacks_eval.defence import Defence
from attacks_eval.pgd import PGD
from attacks_eval.protocol import craft
from attacks_eval.results import read_result, write_result
from attacks_eval.slots import Task
from attacks_eval.threat_model import ThreatModel
from models.bundle import Bundle
from models.console import console, progress_bar
from models.evaluation.accuracy import accuracy, bare_logits, purified_logits
from models.evaluation.sample import LabelledImages
from models.files import commit
from models.pixels import from_uint8, to_unit
from models.purifier import Preset, PurifiedClassifier, agreement
from models.streams import Stream


def attack_bare_classifier(
    defence: PurifiedClassifier, images: Tensor, labels: Tensor, threat: ThreatModel, config: PGD, seed: int
) -> Tensor:
    """PGD images [B, C, H, W] in [-1, 1], rounded to the 256 levels that a file can hold, still inside the budget."""
    unit = to_unit(images).clamp(0.0, 1.0)
    tasks = [Task(row, image, int(label)) for row, (image, label) in enumerate(zip(unit, labels, strict=True))]
    with progress_bar(f"PGD-{config.steps} on the bare classifier", len(tasks) * config.queries) as progress:
        advance = partial(progress.advance, progress.task_ids[0])
        made = craft(Defence.of(defence).bare(), config, tasks, threat, Stream((seed, "bare")), advance)
    return from_uint8(threat.round_inside(torch.stack([image for _, image in made]), unit))


def run_baseline(
    bundle: Bundle,
    taken: LabelledImages,
    presets: Sequence[str],
    threat: ThreatModel,
    config: PGD,
    seed: int,
    out: Path,
    command: str,
) -> dict[str, Any]:
    """Measure each preset and write `out` after it.

    A preset that `out` already holds, with the same values on the same weights, is not measured again: an interrupted
    run resumes, and a bundle with one new preset costs one measurement.
    """
    chosen = {name: bundle.manifest.preset(name) for name in presets}
    question = {
        "kind": "baseline",
        "weights": bundle.manifest.weights_digest,
        "data": taken.name,
        "first": taken.first,
        "images": len(taken.images),
        "seed": seed,
        "threat": {**threat.model_dump(), **config.model_dump(include={"steps", "attack_step", "random_start"})},
    }
    result = read_result(out, question, command) | {"bundle": bundle.digest}
    attacked = attack_bare_classifier(bundle.defence, taken.images, taken.labels, threat, config, seed)
    result["bare"] = {
        "clean": accuracy(bare_logits(bundle.defence, taken.images), taken.labels).as_json(),
        "attacked": accuracy(bare_logits(bundle.defence, attacked), taken.labels).as_json(),
    }
    earlier = result.get("presets", {})
    rows = {name: row for name, row in earlier.items() if name in chosen and row["preset"] == chosen[name].model_dump()}
    for name, preset in chosen.items():
        if name not in rows:
            rows[name] = _measure_preset(bundle.defence, name, preset, taken, attacked, seed)
            write_result(out, result | {"presets": rows})
    result["presets"] = {name: rows[name] for name in chosen}
    write_result(out, result)
    return result


def _measure_preset(
    defence: PurifiedClassifier, name: str, preset: Preset, taken: LabelledImages, attacked: Tensor, seed: int
) -> dict[str, Any]:
    row: dict[str, Any] = {"preset": preset.model_dump(), "commit": commit()}
    start = time.perf_counter()
    total = 2 * len(attacked) * preset.replicates * preset.num_steps
    with progress_bar(f"{name} (image-steps)", total) as progress:
        advance = partial(progress.advance, progress.task_ids[0])
        for offset, (key, batch) in enumerate((("clean", taken.images), ("transfer", attacked))):
            logits = purified_logits(defence, batch, preset, seed + 1 + offset, advance)
            row[key] = accuracy(logits.mean(0), taken.labels).as_json()
            row[f"{key}_agreement"] = round(float(agreement(logits).mean()), 4)
    row["image_steps"], row["seconds"] = total, round(time.perf_counter() - start, 1)
    console.print(f"{name}: clean {row['clean']['accuracy']:.3f}, transfer {row['transfer']['accuracy']:.3f}")
    return row
