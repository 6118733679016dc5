"""All that an evaluation found, and how it becomes the Evaluation that is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from attacks_eval.checklist import checklist
from attacks_eval.checks import Checks
from attacks_eval.evaluation import AttackResult, Certification, Curve, DetectionRow, Evaluation, ImageResult
from attacks_eval.indicators import Evidence, indicators
from attacks_eval.judge import Verdict
from attacks_eval.phases import Row
from attacks_eval.probe import GradientProbe
from attacks_eval.purifiers import LangevinPurifier
from attacks_eval.run import Run
from attacks_eval.shares import Share, share, statistics_of
from attacks_eval.summary import (
    WorstCase,
    answered,
    attack_results,
    broken_by_rounding,
    class_rows,
    confusion,
    image_results,
    robust,
)
from models.files import commit

GALLERY = 8


@dataclass(frozen=True)
class Findings:
    """What the phases of an evaluation came to."""

    probe: GradientProbe
    clean: Mapping[int, Verdict]
    rows: Sequence[Row]
    worst: Mapping[int, WorstCase]
    rounded: Mapping[int, Verdict]
    bare: Mapping[str, Share]
    curves: Sequence[Curve]
    checks: Checks
    certification: Certification | None
    detection: Sequence[DetectionRow]


def assemble(run: Run, found: Findings, about: Mapping[str, Any]) -> Evaluation:
    """The Evaluation; `about` says what was evaluated: bundle_name, bundle, weights, second, preset_name,
    data, first, class_names, command, seed."""
    attacks = attack_results(run, found.rows, found.clean)
    images = image_results(run, found.rows, found.clean, found.worst, found.rounded)
    signs = indicators(Evidence(found.probe, found.clean, found.rows, found.checks, found.worst, found.rounded))
    names, total, spent = _class_names(about["class_names"], images), len(run.tasks), run.ledger.spent()
    purifier = run.defence.purifier
    return Evaluation(
        **{**about, "class_names": names},
        preset=purifier.preset if isinstance(purifier, LangevinPurifier) else None,
        images=total,
        images_digest=run.ledger.question["images"],
        threat=run.threat,
        plan_name=run.plan.name,
        plan=run.plan.model_dump(mode="json"),
        commit=commit(),
        torch=torch.__version__,
        device=str(run.defence.device),
        clean=statistics_of(list(found.clean.values()), total),
        bare=dict(found.bare),
        attacks=attacks,
        worst_case=share(sum(robust(image) for image in images), total),
        worst_case_rounded=share(sum(_right_rounded(image) for image in images), total),
        worst_attack=_worst_attack(attacks),
        gradient_note=_gradient_note(found.probe),
        classes=class_rows(images, names),
        confusion=confusion(images, len(names)),
        margins={
            "clean": [image.clean.margin for image in images],
            "adversarial": [image.worst.margin for image in images if image.worst],
        },
        curves=list(found.curves),
        indicators=signs,
        checklist=checklist(run.threat, attacks, found.curves, signs),
        certification=found.certification,
        detection=list(found.detection),
        gallery=_gallery(images),
        image_results=images,
        image_steps=spent.image_steps,
        backward_steps=spent.backward_steps,
        seconds=round(spent.seconds, 1),
        notes=_notes(run, found, images),
    )


def _class_names(names: Sequence[str], images: Sequence[ImageResult]) -> list[str]:
    """The names, continued by numbers where there are more labels than names."""
    highest = max(max(image.label, image.clean.label, answered(image)) for image in images)
    return [*names, *(str(label) for label in range(len(names), highest + 1))]


def _right_rounded(image: ImageResult) -> bool:
    """Right when clean, and the kept adversarial image, rounded, is answered rightly."""
    return image.clean.right and (image.rounded is None or image.rounded.right)


def _worst_attack(attacks: Sequence[AttackResult]) -> str:
    """The attack that leaves the fewest images right, of those that were run on all images."""
    rows = [row for row in attacks if not row.fixed_randomness and row.on == "all"]
    return min(rows, key=lambda row: row.statistics.mean_logit.correct).name if rows else "none"


def _gradient_note(probe: GradientProbe) -> str:
    if not probe.piecewise_linear:
        return f"Exact gradients ({probe.exact}); cosine with BPDA's: {probe.bpda_cosine:.2f}."
    note = (
        "The energy is piecewise linear, so the exact gradient through the chain is BPDA's, the identity, and blind to "
        "what purification does. White-box rows use a smooth twin of the same weights "
        f"({probe.exact}); cosine with BPDA's gradient: {probe.bpda_cosine:.2f}."
    )
    if probe.exact.stride > 1:
        note += f" One Hessian serves {probe.exact.stride} steps (cosine with all of them: {probe.stride_cosine:.3f})."
    return note


def _gallery(images: Sequence[ImageResult]) -> list[int]:
    """The first broken images, then survivors."""
    broken = [image.number for image in images if image.worst and not robust(image)]
    held = [image.number for image in images if robust(image)]
    return [*broken[: GALLERY - min(2, len(held))], *held[:2]]


def _notes(run: Run, found: Findings, images: Sequence[ImageResult]) -> list[str]:
    notes = [
        "An image counts as broken when the mean logits over fresh replicates are wrong, decided or not.",
        "Rows on all images can be compared with each other; rows on survivors say what is left after them.",
        "An attack ends when the mean logits break: votes, served answers and single draws are what is left then, "
        "and an attacker who aims at those rules would leave less.",
        "Several attacks and candidates are judged for each image, so chance favours the attacker a little.",
    ]
    if rounded := sum(broken_by_rounding(image) for image in images):
        notes.append(
            f"{rounded} of the images that no attack broke are wrong once rounded to 256 levels: broken in the worst "
            "case, and in no row of the attack table."
        )
    if len(commits := run.ledger.commits()) > 1:
        written = ", ".join(each[:12] for each in commits)
        notes.append(f"Made in sessions of {len(commits)} commits ({written}); one alone may differ a little.")
    if isinstance(run.defence.purifier, LangevinPurifier) and run.defence.purifier.preset.precision == "bfloat16":
        notes.append("Chains and gradients run in bfloat16, as the preset is served.")
    return notes
