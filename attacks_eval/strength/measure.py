"""One row: a candidate attacked by the same plan, on the same images, as every other."""

import statistics
import time
from pathlib import Path

import torch
from pydantic import Field

from attacks_eval.added import parse_added
from attacks_eval.certify import CertifyConfig
from attacks_eval.defence import Defence
from attacks_eval.evaluation import Evaluation
from attacks_eval.evaluator import About, Evaluator
from attacks_eval.judge import JudgeConfig, Verdict
from attacks_eval.plans import CertifyPlan, Plan, PlannedAttack, compact_attacks, load_plan
from attacks_eval.shares import Share, share
from attacks_eval.strength.candidates import Candidate
from attacks_eval.strength.cooling import CoolingPurifier
from attacks_eval.strength.parts import Parts
from attacks_eval.threat_model import Linf
from models.config import Frozen
from models.data import DataSection, held_out_set
from models.streams import Stream
from models.training.frozen_parts import weights_digest

HELD_OUT = 1000
"""CIFAR-10's last so many training images, which no part of a candidate but its energy may have learned from."""
RADII = (0.25, 0.5)
ANSWERS_TIMED = 5


class Setting(Frozen):
    """How every row is measured: the first `images` of the held-out ones, `certified` of them for certificates.

    `budget` is the L-infinity radius in 1/255 units.
    """

    images: int = Field(default=64, ge=1, le=HELD_OUT)
    certified: int = Field(default=32, ge=1)
    seed: int = 0
    budget: float = Field(default=8.0, gt=0)


class Row(Frozen):
    """A candidate's line in the table.

    Args:
        clean: right when not attacked, of all images: what is refused is not right.
        answered: clean images that are answered at all; None where nothing is refused.
        held: by attack, images of which it could not make the defence say something wrong.
        vote, worst_vote: the same as clean and worst where the most votes of single replicates are the answer; of
            images that were made against the mean logits.
        worst_answered: of the strongest images against each, those that are answered, an image that was wrong when
            clean among them; None where nothing is refused.
    """

    candidate: Candidate
    setting: Setting
    clean: Share
    answered: Share | None = None
    worst_answered: Share | None = None
    bare: Share
    held: dict[str, Share]
    worst: Share
    vote: Share | None = None
    worst_vote: Share | None = None
    worst_attack: str
    certified: dict[str, Share] = {}
    seconds_an_answer: float
    parameters: int
    warnings: tuple[str, ...] = ()
    image_steps: int
    seconds: float
    commit: str


def plan_for(candidate: Candidate, setting: Setting) -> Plan:
    """The plan `compact`, as `_alone` has it for a classifier alone."""
    plan = load_plan("compact")
    certify = None
    if candidate.sigma:
        certify = CertifyPlan(images=setting.certified, config=CertifyConfig(sigma=candidate.sigma), radii=RADII)
    changes = {
        "attacks": _alone() if candidate.chain.num_steps == 0 else plan.attacks,
        "images": setting.images,
        "judge": JudgeConfig(refuse_below=candidate.refuse_below),
        "certify": certify,
    }
    return plan.model_copy(update=changes)


def _alone() -> tuple[PlannedAttack, ...]:
    """A classifier alone draws no noise: it is asked once a step, and more often; and what transfers knows it whole."""
    attacks = [each for each in compact_attacks(50, 1, 500) if each.name != "bpda-pgd"]
    whole = {"knowledge": "white box"}
    return tuple(each.model_copy(update=whole) if each.source == "bare" else each for each in attacks)


def measure(candidate: Candidate, parts: Parts, setting: Setting, folder: Path, workers: int, command: str) -> Row:
    """Train what is missing, attack, certify; the evaluation in `folder` goes on where it stopped."""
    purified = parts.defence(candidate)
    held_out = held_out_set(DataSection(name="cifar10", held_out=HELD_OUT))
    assert held_out is not None
    rows = slice(0, setting.images)
    about = About(
        bundle_name=candidate.name,
        weights=f"{weights_digest(purified.energy)} {weights_digest(purified.classifier)}",
        preset_name="its own",
        data="cifar10, training images that were held out,",
        first=50_000 - HELD_OUT,
        class_names=held_out.class_names,
        command=command,
    )
    defence = Defence.of(purified)
    if candidate.cooled:
        defence.purifier = CoolingPurifier(purified, candidate.chain)
    defence = defence if candidate.chain.num_steps else defence.bare()
    second = None
    if candidate.transfer_from:
        second = Defence.of(parts.defence(candidate.model_copy(update={"classifier": candidate.transfer_from})))
    evaluation = Evaluator(
        defence,
        Linf(setting.budget / 255),
        plan_for(candidate, setting),
        folder=folder,
        resume=(folder / "ledger.jsonl").exists(),
        seed=setting.seed,
        added=[parse_added(spec) for spec in candidate.attacks],
        about=about,
        workers=workers,
        second=second,
    ).run(held_out.images[rows] / 255.0, held_out.labels[rows])
    parameters = sum(each.numel() for each in purified.parameters())
    return row_of(candidate, setting, evaluation, seconds_an_answer(defence), parameters)


def row_of(candidate: Candidate, setting: Setting, found: Evaluation, seconds_an_answer: float, parameters: int) -> Row:
    """What the table shows of an evaluation."""
    points = found.certification.points if found.certification else []
    certified = {f"{radius:g}": each.accuracy for radius in RADII for each in points if each.radius == radius}
    clean, worst = ([verdict for verdict in verdicts if verdict] for verdicts in _verdicts(found))
    refusing, alone = candidate.refuse_below > 0, candidate.chain.num_steps == 0
    return Row(
        candidate=candidate,
        setting=setting,
        clean=share(sum(each.right and not each.refused for each in clean), found.images),
        answered=share(sum(not each.refused for each in clean), found.images) if refusing else None,
        worst_answered=share(found.images - sum(each.refused for each in worst), found.images) if refusing else None,
        bare=found.bare["clean"],
        held={each.name: each.statistics.mean_logit for each in found.attacks},
        worst=found.worst_case,
        vote=None if alone else share(sum(each.vote for each in clean), found.images),
        worst_vote=None if alone else share(sum(each.vote for each in worst), found.images),
        worst_attack=found.worst_attack,
        certified=certified,
        seconds_an_answer=seconds_an_answer,
        parameters=parameters,
        warnings=tuple(each.title for each in found.indicators if each.fired),
        image_steps=found.image_steps + found.backward_steps,
        seconds=found.seconds,
        commit=found.commit,
    )


def _verdicts(found: Evaluation) -> tuple[list[Verdict | None], list[Verdict | None]]:
    """Of each clean image, and of the worst one made of it; None where it was wrong when clean."""
    return [each.clean for each in found.image_results], [each.worst for each in found.image_results]


def seconds_an_answer(defence: Defence) -> float:
    """The median time of one answer to one image, in this process."""
    image, taken = torch.full((1, 3, 32, 32), 0.5, device=defence.device), []
    for number in range(ANSWERS_TIMED):
        start = time.perf_counter()
        defence.replicate_logits(image, [Stream(("timed", number))], 0, defence.served_replicates)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)
