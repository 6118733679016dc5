"""A small but complete Evaluation, made by hand: 40 images of four classes, six attacks, every section filled."""

import io
from pathlib import Path
from typing import Any, Literal

import numpy as np

from attacks_eval.evaluation import (
    AttackResult,
    Certification,
    CertifiedPoint,
    ChecklistItem,
    Curve,
    CurvePoint,
    DetectionRow,
    Evaluation,
    ImageResult,
    Indicator,
)
from attacks_eval.judge import Verdict
from attacks_eval.shares import Statistics, share
from attacks_eval.summary import class_rows, confusion, robust
from attacks_eval.threat_model import ThreatModel
from models.files import replace_file
from models.purifier import Preset

IMAGES, FIRST = 40, 100
CLASSES = ("airplane", "cat", "dog", "ship")
WRONG_WHEN_CLEAN = set(range(34, 40))
# Which attack broke which image, at which question; images 31 to 33 survive all of them.
BROKEN = {
    "noise": {30: 3},
    "transfer-bare": dict.fromkeys(range(0, 4), 100),
    "bpda-pgd": {row: 3 + row for row in range(0, 16)},
    "smooth-apgd": {row: 2 + row % 11 for row in range(0, 29)},
    "square": {29: 412},
    "fixed-randomness": {row: 1 + row % 5 for row in range(0, 33)},
}
TITLES = {
    "noise": "random noise, 10 tries",
    "transfer-bare": "PGD-100 on the bare classifier",
    "bpda-pgd": "PGD-50, EOT 16, bpda",
    "smooth-apgd": "APGD-50, EOT 16, smooth/4",
    "square": "Square, 1000 queries of 8 replicates",
    "fixed-randomness": "APGD-50, noise frozen",
}
QUERIES = {"noise": 10, "transfer-bare": 100, "square": 1000}
KNOWLEDGE: dict[str, Literal["black box", "transfer", "none"]] = {
    "noise": "none",
    "transfer-bare": "transfer",
    "square": "black box",
}
GRADIENTS = {"transfer-bare": "bpda", "bpda-pgd": "bpda", "smooth-apgd": "smooth/4", "fixed-randomness": "smooth/4"}
SURVIVORS_ONLY = {"square"}


def sample(**updates: Any) -> Evaluation:
    """The evaluation, with other values for some keys."""
    images = [_image(row) for row in range(IMAGES)]
    names = list(updates.get("class_names", CLASSES))
    values: dict[str, Any] = {
        "bundle_name": "sample-bundle",
        "bundle": "b" * 64,
        "weights": "a" * 64,
        "preset_name": "standard",
        "preset": Preset(num_steps=200, step_size=0.01, temperature=1e-4, replicates=8),
        "data": "sample",
        "first": FIRST,
        "images": IMAGES,
        "class_names": names,
        "images_digest": "0" * 64,
        "second": "",
        "threat": ThreatModel(),
        "plan_name": "standard",
        "plan": {"images": IMAGES, "judge": {"stages": [10, 32, 128]}},
        "seed": 0,
        "command": "python -m attacks_eval run --bundle sample-bundle --preset standard",
        "commit": "c" * 40,
        "torch": "2.13.0",
        "device": "cpu",
        "clean": _statistics(34, 3),
        "bare": {"clean": share(38, IMAGES), "attacked": share(0, IMAGES)},
        "attacks": [_attack(name, images) for name in BROKEN],
        "worst_case": share(sum(robust(image) for image in images), IMAGES),
        "worst_case_rounded": share(4, IMAGES),
        "worst_attack": "smooth-apgd",
        "gradient_note": "The energy is piecewise linear, so its exact gradient is the identity.",
        "classes": class_rows(images, names),
        "confusion": confusion(images, len(names)),
        "margins": {
            "clean": [image.clean.margin for image in images],
            "adversarial": [image.worst.margin for image in images if image.worst],
        },
        "curves": _curves(),
        "indicators": _indicators(),
        "checklist": [
            ChecklistItem(item="A precise threat model", done=True, evidence="L-infinity 8/255"),
            ChecklistItem(item="Targeted attacks", done=False, evidence="left out"),
        ],
        "certification": _certification(),
        "detection": [_detection("energy", "worst case", True), _detection("distance_l2", "transfer-bare", False)],
        "gallery": [100, 105, 131],
        "image_results": images,
        "image_steps": 12_345_678,
        "backward_steps": 2_345_678,
        "seconds": 4321.0,
        "notes": ["An image counts as broken when the mean logits over fresh replicates are wrong."],
    }
    return Evaluation.model_validate(values | updates)


def write_sample(folder: Path, evaluation: Evaluation | None = None) -> dict[str, np.ndarray[Any, Any]]:
    """`result.json` and `adv.npz`; returns the arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / "result.json", (evaluation or sample()).model_dump_json(indent=1).encode())
    arrays = adversarial_arrays()
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    replace_file(folder / "adv.npz", buffer.getvalue())
    return arrays


def adversarial_arrays() -> dict[str, np.ndarray[Any, Any]]:
    """Colour gradients, changed by at most 8/255 and purified to beyond [0, 1]."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, 16, dtype=np.float32)
    clean = np.stack([np.stack([np.outer(ramp, ramp), np.outer(ramp, 1 - ramp), np.outer(1 - ramp, ramp)])] * 34)
    clean = np.roll(clean, 3, axis=2)
    signs = np.sign(rng.standard_normal(clean.shape)).astype(np.float32)
    adversarial = np.clip(clean + signs * np.float32(8 / 255), 0, 1)
    return {
        "number": np.arange(FIRST, FIRST + 34),
        "label": np.arange(34) % 4,
        "clean": clean,
        "adversarial": adversarial,
        "adversarial_uint8": (adversarial * 255).round().astype(np.uint8),
        "purified": clean * np.float32(1.1) - np.float32(0.05),
    }


def verdict(label: int, right: bool, margin: float = 1.0) -> Verdict:
    """Of ten draws, nine agree."""
    correct = 9 if right else 1
    answered = label if right else (label + 1) % 4
    margin = abs(margin) if right else -abs(margin)
    return Verdict(
        draws=10,
        correct=correct,
        label=answered,
        margin=margin,
        right=right,
        decided=True,
        vote=right,
        single=correct / 10,
        served=float(right),
        ten=False,
    )


def _image(row: int) -> ImageResult:
    label, right = row % 4, row not in WRONG_WHEN_CLEAN
    breakers = [name for name in BROKEN if name != "fixed-randomness" and row in BROKEN[name]]
    return ImageResult(
        number=FIRST + row,
        label=label,
        clean=verdict(label, right, 0.5 + 0.1 * row),
        broken_by=breakers[0] if breakers else None,
        all_broken_by=breakers,
        worst=verdict(label, not breakers, 0.2 + 0.13 * (row % 17)) if right else None,
        rounded=verdict(label, not breakers) if right else None,
        distance=8.0 if right else None,
    )


def _statistics(correct: int, undecided: int) -> Statistics:
    return Statistics(
        mean_logit=share(correct, IMAGES),
        vote=share(max(correct - 1, 0), IMAGES),
        ten=share(correct // 2, IMAGES),
        single=round(0.9 * correct / IMAGES, 5),
        served=round(0.95 * correct / IMAGES, 5),
        undecided=undecided,
    )


def _attack(name: str, images: list[ImageResult]) -> AttackResult:
    broken, frozen = BROKEN[name], name == "fixed-randomness"
    above = list(BROKEN)[: list(BROKEN).index(name)]
    fallen = set[int]().union(*(BROKEN[each] for each in above))
    attacked = [row for row in range(34) if name not in SURVIVORS_ONLY or row not in fallen]
    others = set[int]().union(*(BROKEN[each] for each in BROKEN if each not in (name, "fixed-randomness")))
    steps = sorted(broken.values())
    return AttackResult(
        name=name,
        title=TITLES[name],
        knowledge=KNOWLEDGE.get(name, "white box"),
        configuration={"attack": "PGD", "grad": GRADIENTS.get(name), "eot": 16},
        on="survivors" if name in SURVIVORS_ONLY else "all",
        attacked=len(attacked),
        statistics=_statistics(len(attacked) - len(broken), 2),
        unique=0 if frozen else len(broken.keys() - others),
        first=0 if frozen else len(broken.keys() - fallen),
        left=34 - len(fallen if frozen else fallen | broken.keys()),
        median_queries=float(steps[len(steps) // 2]) if steps else None,
        broken_at=[broken.get(row) for row in attacked],
        queries=QUERIES.get(name, 50),
        image_steps=1_234_567,
        backward_steps=0 if name in KNOWLEDGE else 234_567,
        seconds=75.0,
        fixed_randomness=frozen,
    )


def _curves() -> list[Curve]:
    budget = [(0, 34), (0.5, 30), (1, 25), (2, 18), (4, 10), (8, 4), (16, 0)]
    length = [(0, 38, 0, 0.004), (50, 36, 6, 0.3), (100, 35, 5, 0.6), (200, 34, 4, 1.2)]
    return [
        Curve(
            name="budget",
            title="Accuracy against the attacker's budget",
            x_label="budget (L-infinity, 1/255 units)",
            note="PGD-20, EOT 8, gradient smooth",
            images=IMAGES,
            points=[CurvePoint(x=x, accuracies={"robust": share(count, IMAGES)}) for x, count in budget],
        ),
        Curve(
            name="langevin_steps",
            title="Accuracy and latency against the purifier's Langevin steps",
            x_label="Langevin steps",
            note="PGD-20, EOT 8, gradient smooth",
            images=IMAGES,
            points=[
                CurvePoint(
                    x=x,
                    accuracies={"clean": share(clean, IMAGES), "robust": share(right, IMAGES)},
                    seconds_per_image=seconds,
                )
                for x, clean, right, seconds in length
            ],
        ),
    ]


def _indicators() -> list[Indicator]:
    found = [("unlooked", None), ("calm", False), ("flat", True), ("calm-too", False)]
    return [
        Indicator(name=name, title=f"Sign {name}", fired=fired, finding=f"found {name}", advice=f"advice {name}")
        for name, fired in found
    ]


def _certification() -> Certification:
    counts = [(0.0, 30), (0.05, 21), (0.1, 12), (0.14, 2)]
    return Certification(
        sigma=0.06,
        selection=100,
        estimation=1000,
        alpha=0.001,
        images=IMAGES,
        largest_radius=0.148,
        points=[CertifiedPoint(radius=radius, accuracy=share(count, IMAGES)) for radius, count in counts],
        abstained=4,
    )


def _detection(quantity: str, attack: str, knows: bool) -> DetectionRow:
    return DetectionRow(
        quantity=quantity,
        attack=attack,
        attacker_knows=knows,
        clean_images=IMAGES,
        attacked_images=34,
        auroc=0.713,
        tpr=0.059,
    )
