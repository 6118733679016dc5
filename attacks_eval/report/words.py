"""Phrases that the pages share: how a share is written, and the sentence of the verdict."""

from collections.abc import Sequence

from attacks_eval.evaluation import AttackResult, Evaluation
from attacks_eval.shares import Share
from models.pages.wording import percent, plural, settings, signed

ATTACKERS = {
    "white box": "An attacker who knows the defence",
    "black box": "An attacker who may only ask the defence questions",
    "transfer": "An attacker who knows only a classifier without the purifier",
    "none": "Blind chance",
}
INTERVALS = "Brackets hold Wilson 95 % intervals, over images."


def share(value: Share) -> str:
    """`9.0 % [4.8, 16.2]`."""
    return f"{percent(value.accuracy)} {interval(value)}"


def interval(value: Share) -> str:
    """`[4.8, 16.2]`."""
    return f"[{100 * value.low:.1f}, {100 * value.high:.1f}]"


def counted(value: Share) -> str:
    """`9.0 % [4.8, 16.2] (9/100)`."""
    return f"{share(value)} ({value.correct}/{value.total})"


def points(difference: float) -> str:
    """-0.12 as `-12.0 points`, with a typographic minus."""
    return f"{signed(100 * difference, 1)} points"


def preset(evaluation: Evaluation) -> str:
    """The sampler's settings."""
    return "not a Langevin chain" if evaluation.preset is None else settings(evaluation.preset.model_dump())


def counting_attacks(evaluation: Evaluation) -> list[AttackResult]:
    """The attacks that make up the worst case, in their order; not the checks on frozen noise."""
    return [attack for attack in evaluation.attacks if not attack.fixed_randomness]


def attack_title(evaluation: Evaluation, name: str) -> str:
    """The title of the attack of that name, or the name itself."""
    return next((attack.title for attack in evaluation.attacks if attack.name == name), name)


def verdict(evaluation: Evaluation) -> str:
    """The finding in a sentence: the worst number first."""
    worst, attacks = evaluation.worst_case, counting_attacks(evaluation)
    threat = f"changes of at most {evaluation.threat.name}"
    clean = f"(clean: {percent(evaluation.clean.mean_logit.accuracy)})"
    if not attacks:
        return f"No attack was run {clean}: nothing is known about robustness."
    strongest = next(who for who in ATTACKERS if any(attack.knowledge == who for attack in attacks))
    left = (
        f"{ATTACKERS[strongest]} leaves {share(worst)} of {plural(worst.total, 'image')} right {clean}, with {threat}."
    )
    return f"{left} {_strongest_attack(evaluation, attacks)}"


def _strongest_attack(evaluation: Evaluation, attacks: Sequence[AttackResult]) -> str:
    name = evaluation.worst_attack
    if not any(attack.first for attack in attacks):
        return "No attack broke any image: the attacks, or the budget, may be too weak to tell."
    strongest = next((attack for attack in attacks if attack.name == name), None)
    if strongest is None:
        return f"The strongest attack was {name}." if name not in ("", "none") else "No attack was run on all images."
    if strongest.on == "survivors" or len(attacks) == 1:
        return f"The strongest attack was {strongest.title}."
    return (
        f"The strongest single attack was {strongest.title}: alone it leaves {share(strongest.statistics.mean_logit)}."
    )


def caveat(evaluation: Evaluation) -> str:
    """What the number is and is not."""
    rule = (
        f"{INTERVALS} An image counts as broken when any attack broke it, or when its worst image is wrong once "
        "rounded to 256 levels; a better attack can only lower the number."
    )
    if any(attack.knowledge == "white box" for attack in counting_attacks(evaluation)):
        return rule
    return f"{rule} No attack here knows the defence; one that does may leave far less."


def bpda_alone(evaluation: Evaluation) -> str | None:
    """What the attack of earlier papers would have reported; None when it was not run on all images."""
    rows = [attack for attack in counting_attacks(evaluation) if attack.on == "all" and _is_bpda(attack)]
    if not rows:
        return None
    strongest = min(rows, key=lambda attack: attack.statistics.mean_logit.accuracy)
    alone, worst = strongest.statistics.mean_logit, evaluation.worst_case
    said = f"BPDA alone ({strongest.title}) would have reported {share(alone)}"
    if alone.correct <= worst.correct:
        return f"{said}: here the other attacks add nothing to it."
    return f"{said}: {100 * (alone.accuracy - worst.accuracy):.1f} points too much."


def _is_bpda(attack: AttackResult) -> bool:
    """Through the defence: on a bare classifier the identity is no approximation."""
    return attack.knowledge == "white box" and attack.configuration.get("grad") == "bpda"
