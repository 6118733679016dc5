"""One attacked image file, to try a running service with."""

from dataclasses import dataclass
from pathlib import Path

import torch

from attacks_eval.baseline import attack_bare_classifier
from attacks_eval.errors import QuestionError
from attacks_eval.pgd import PGD
from attacks_eval.threat_model import ThreatModel
from models.bundle import Bundle
from models.image_files import read_image, write_png
from models.pixels import from_uint8, to_uint8


@dataclass(frozen=True)
class Crafted:
    """The bare classifier's labels before and after the attack."""

    before: str
    after: str


def craft(
    bundle: Bundle, image: Path, label: str | None, threat: ThreatModel, config: PGD, seed: int, output: Path
) -> Crafted:
    """Attack the bare classifier with PGD and write the result as PNG.

    Args:
        label: the true class name; None takes the bare classifier's answer for it.
    """
    names = bundle.manifest.class_names
    if label is not None and label not in names:
        raise QuestionError(f"unknown label {label!r}; the bundle knows {', '.join(names)}")
    device = next(bundle.defence.parameters()).device
    clean = from_uint8(read_image(image, bundle.manifest.image))[None].to(device)
    before = bundle.defence.classify(clean).argmax(1)
    target = before if label is None else torch.tensor([names.index(label)], device=device)
    attacked = attack_bare_classifier(bundle.defence, clean, target, threat, config, seed)
    write_png(output, to_uint8(attacked[0].cpu()))
    return Crafted(names[int(before)], names[int(bundle.defence.classify(attacked).argmax(1))])
