"""What an evaluation does: which attacks, on how many images, in which order. Cheap attacks come before dear ones.

No plan changes the defence: the chain's length, step size and temperature are the bundle's preset's, always.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from attacks_eval.apgd import APGD
from attacks_eval.certify import CertifyConfig
from attacks_eval.errors import QuestionError
from attacks_eval.evaluation import Knowledge
from attacks_eval.gradients import BPDA, FULL, GradMode
from attacks_eval.judge import JudgeConfig
from attacks_eval.pgd import PGD
from attacks_eval.random_search import Corners, RandomNoise
from attacks_eval.square import Square
from models.config import Frozen

SearchConfig = Annotated[PGD | APGD | Square | RandomNoise | Corners, Field(discriminator="kind")]


class PlannedAttack(Frozen):
    """One attack of a plan.

    Args:
        source: None for a search against the defence; `bare` crafts on the bare classifier, `second` on that of
            another bundle, and tries the result on the defence.
        on: `survivors` of the attacks above, or all images that were right when clean.
        fixed_randomness: freeze the defence's noise: a check of the attack, not part of the worst case.
    """

    name: str
    title: str
    knowledge: Knowledge
    attack: SearchConfig
    source: Literal["bare", "second"] | None = None
    on: Literal["all", "survivors"] = "all"
    fixed_randomness: bool = False


class CurvePlan(Frozen):
    """Accuracy curves, by PGD with the strongest gradient, on the first `images` images.

    `budgets` are multiples of the threat's own.
    """

    images: int = Field(ge=1)
    attack: PGD
    budgets: tuple[Annotated[float, Field(gt=0)], ...] = ()
    eot: tuple[Annotated[int, Field(ge=1)], ...] = ()
    langevin_steps: tuple[Annotated[int, Field(ge=0)], ...] = ()


class CertifyPlan(Frozen):
    """Randomised-smoothing certificates on the first `images` images.

    `radii`, L2 in [0, 1] pixel units, are looked at besides the curve's own.
    """

    images: int = Field(ge=1)
    config: CertifyConfig
    # Left out of what is written where there are none: evaluations from before still resume.
    radii: tuple[Annotated[float, Field(ge=0)], ...] = Field(default=(), exclude_if=lambda value: not value)


class Plan(Frozen):
    """A whole evaluation. `check_images` bounds the indicators' own small runs."""

    name: str
    images: int = Field(ge=1)
    attacks: tuple[PlannedAttack, ...]
    judge: JudgeConfig = JudgeConfig()
    check_images: int = Field(default=8, ge=1)
    curves: CurvePlan | None = None
    certify: CertifyPlan | None = None
    detection_images: int = Field(default=0, ge=0)

    def without(self, parts: Sequence[str]) -> "Plan":
        """The plan without the attacks of those names, `curves` or `certify`; raises QuestionError for others."""
        names = [each.name for each in self.attacks]
        if unknown := sorted(set(parts) - {*names, "curves", "certify"}):
            raise QuestionError(
                f"{self.name} has no {', '.join(unknown)} to skip; it has {', '.join(names)}, curves, certify"
            )
        kept = tuple(each for each in self.attacks if each.name not in parts)
        dropped = {part: None for part in ("curves", "certify") if part in parts}
        return self.model_copy(update={"attacks": kept, **dropped})


def transfer_from(source: Literal["bare", "second"], steps: int = 100) -> PlannedAttack:
    """PGD on a classifier without the purifier, margin loss, tried on the defence."""
    where = "the bare classifier" if source == "bare" else "a second bundle's classifier"
    return PlannedAttack(
        name=f"transfer-{source}",
        title=f"PGD-{steps} on {where}",
        knowledge="transfer",
        attack=PGD(steps=steps, loss="margin"),
        source=source,
    )


def pgd(name: str, steps: int, eot: int, grad: GradMode, on: Literal["all", "survivors"] = "all") -> PlannedAttack:
    """PGD with cross-entropy through the purifier."""
    attack = PGD(steps=steps, eot=eot, grad=grad)
    return PlannedAttack(
        name=name, title=f"PGD-{steps}, EOT {eot}, {grad}", knowledge="white box", attack=attack, on=on
    )


def apgd(
    name: str,
    steps: int,
    eot: int,
    grad: GradMode,
    on: Literal["all", "survivors"] = "all",
    targets: int = 0,
) -> PlannedAttack:
    """Auto-PGD with the margin loss through the purifier, towards each of the likeliest `targets` where there are."""
    attack = APGD(steps=steps, eot=eot, grad=grad, loss="margin", targets=targets)
    aim = f" towards {targets} targets" if targets else ""
    title = f"APGD-{steps}{aim}, EOT {eot}, {grad}"
    return PlannedAttack(name=name, title=title, knowledge="white box", attack=attack, on=on)


def square(max_queries: int, eot: int) -> PlannedAttack:
    """Square on what is left."""
    attack = Square(max_queries=max_queries, eot=eot)
    title = f"Square, {max_queries} queries of {eot} replicates"
    return PlannedAttack(name="square", title=title, knowledge="black box", attack=attack, on="survivors")


def blind(queries: int, eot: int) -> tuple[PlannedAttack, PlannedAttack]:
    """What any attack must beat: points and corners of the ball at random."""
    noise, corners = RandomNoise(queries=queries, eot=eot), Corners(queries=queries, eot=eot)
    return (
        PlannedAttack(name="noise", title=f"random noise, {queries} tries", knowledge="none", attack=noise),
        PlannedAttack(name="corners", title=f"random corners, {queries} tries", knowledge="none", attack=corners),
    )


def fixed_randomness(steps: int) -> PlannedAttack:
    """The strongest attack against the defence with its noise frozen: if this fails too, the attack is broken."""
    attack = APGD(steps=steps, grad=FULL, loss="margin")
    title = f"APGD-{steps}, noise frozen"
    return PlannedAttack(
        name="fixed-randomness", title=title, knowledge="white box", attack=attack, fixed_randomness=True
    )


def _smoke() -> Plan:
    attacks = (transfer_from("bare", 20), pgd("bpda-pgd", 5, 4, BPDA), pgd("full-pgd", 5, 4, FULL))
    return Plan(name="smoke", images=8, attacks=attacks, check_images=4)


def _quick() -> Plan:
    attacks = (
        *blind(5, 8),
        transfer_from("bare", 50),
        pgd("bpda-pgd", 20, 8, BPDA),
        pgd("full-pgd", 20, 8, FULL),
        apgd("full-apgd", 20, 8, FULL),
        square(200, 8),
        fixed_randomness(20),
    )
    curves = CurvePlan(images=16, attack=PGD(steps=10, eot=8, grad=FULL), budgets=(0.125, 0.25, 0.5, 1, 2))
    return Plan(name="quick", images=64, attacks=attacks, curves=curves, detection_images=64)


def _standard() -> Plan:
    attacks = (
        *blind(5, 8),
        transfer_from("bare"),
        pgd("bpda-pgd", 50, 16, BPDA),
        pgd("full-pgd", 50, 16, FULL),
        apgd("full-apgd", 50, 16, FULL, on="survivors"),
        apgd("bpda-apgd", 50, 16, BPDA, on="survivors"),
        square(500, 4),
        fixed_randomness(50),
    )
    curves = CurvePlan(
        images=32,
        attack=PGD(steps=20, eot=8, grad=FULL),
        budgets=(0.0625, 0.125, 0.25, 0.5, 1, 2),
        eot=(1, 4, 16),
        langevin_steps=(0, 25, 50, 100, 200),
    )
    certify = CertifyPlan(images=32, config=CertifyConfig(sigma=0.08))
    return Plan(name="standard", images=256, attacks=attacks, curves=curves, certify=certify, detection_images=256)


def _paper() -> Plan:
    """The protocol of EBM Life Cycle (arXiv 2205.12243): 50 steps of 2/255, 48 EOT and 128 verification replicates,
    640 images; and beside it the attack that it lacked, because a BPDA number alone flatters."""
    attacks = (pgd("bpda-pgd", 50, 48, BPDA), pgd("full-pgd", 50, 48, FULL))
    return Plan(name="paper", images=640, attacks=attacks, judge=JudgeConfig(stages=(128,)))


def compact_attacks(steps: int, eot: int, queries: int) -> tuple[PlannedAttack, ...]:
    """Every kind of attack once, the dear ones on what the others leave."""
    return (
        transfer_from("bare", 50),
        pgd("bpda-pgd", steps, eot, BPDA),
        pgd("full-pgd", steps, eot, FULL),
        apgd("full-apgd", steps, eot, FULL, on="survivors"),
        apgd("full-apgd-t", steps, eot, FULL, on="survivors", targets=3),
        square(queries, max(1, eot // 2)),
    )


def _compact() -> Plan:
    """What compares many defences, on more images than `standard` could afford for each."""
    certify = CertifyPlan(images=200, config=CertifyConfig(sigma=0.12), radii=(0.25, 0.5))
    return Plan(name="compact", images=200, attacks=compact_attacks(20, 4, 200), check_images=4, certify=certify)


PLANS = {"smoke": _smoke, "quick": _quick, "compact": _compact, "standard": _standard, "paper": _paper}


def load_plan(name: str) -> Plan:
    """The plan of that name; raises QuestionError that lists the known ones."""
    if name not in PLANS:
        raise QuestionError(f"unknown preset {name!r}; known: {', '.join(PLANS)}")
    return PLANS[name]()
