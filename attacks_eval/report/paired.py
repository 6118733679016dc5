"""Whether two evaluations differ by more than chance: the same images are paired, others are not."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from attacks_eval.evaluation import Evaluation, ImageResult
from attacks_eval.shares import Share
from attacks_eval.summary import robust

SIGNIFICANT = 0.05


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact two-sided p-value of McNemar's test (1947).

    Of the images on which A and B disagree, each is A's with probability 1/2 if they are equally good.

    Args:
        only_a, only_b: images that only A, or only B, has right.
    """
    disagree = only_a + only_b
    tail = sum(math.comb(disagree, count) for count in range(min(only_a, only_b) + 1))
    return min(1.0, float(2 * tail / 2**disagree))


def difference_interval(a: Share, b: Share) -> tuple[float, float]:
    """The 95 % interval of b - a for independent images (Newcombe 1998, from the two Wilson intervals)."""
    difference = b.accuracy - a.accuracy
    below = math.hypot(b.accuracy - b.low, a.high - a.accuracy)
    above = math.hypot(b.high - b.accuracy, a.accuracy - a.low)
    return difference - below, difference + above


@dataclass(frozen=True)
class Measure:
    """One accuracy that both evaluations have; `only_a` and `only_b` count images when they can be paired."""

    title: str
    a: Share
    b: Share
    only_a: int | None = None
    only_b: int | None = None

    @property
    def difference(self) -> float:
        """B's accuracy minus A's."""
        return self.b.accuracy - self.a.accuracy

    @property
    def p_value(self) -> float | None:
        """McNemar's, for paired images."""
        return None if self.only_a is None or self.only_b is None else mcnemar(self.only_a, self.only_b)

    @property
    def significant(self) -> bool:
        """Beyond chance at the 5 % level, paired or not."""
        if self.p_value is not None:
            return self.p_value < SIGNIFICANT
        low, high = difference_interval(self.a, self.b)
        return low > 0 or high < 0


def same_images(a: Evaluation, b: Evaluation) -> bool:
    """Whether the two were measured on the same images, so that they can be paired."""
    return (a.images_digest, a.first, a.images) == (b.images_digest, b.first, b.images)


def measures(a: Evaluation, b: Evaluation) -> list[Measure]:
    """Worst case first, then clean, then the attacks that both have."""
    found = [
        _measure("worst case", a.worst_case, b.worst_case, a, b, robust),
        _measure("clean", a.clean.mean_logit, b.clean.mean_logit, a, b, lambda each: each.clean.right),
    ]
    others = {attack.name: attack for attack in b.attacks}
    for attack in a.attacks:
        other = others.get(attack.name)
        if other is None:
            continue
        apart = "noise frozen" if attack.fixed_randomness else "on survivors" if attack.on == "survivors" else ""
        title = f"{attack.title} ({apart})" if apart else attack.title
        shares = attack.statistics.mean_logit, other.statistics.mean_logit
        if attack.on == other.on == "all" and not attack.fixed_randomness:
            found.append(_measure(title, *shares, a, b, _survives(attack.name)))
        else:
            found.append(Measure(title, *shares))
    return found


def _survives(name: str) -> Callable[[ImageResult], bool]:
    return lambda each: each.clean.right and name not in each.all_broken_by


def _measure(
    title: str, share_a: Share, share_b: Share, a: Evaluation, b: Evaluation, right: Callable[[ImageResult], bool]
) -> Measure:
    """Paired when the images are the same and their records add up to the shares."""
    in_a = {each.number: right(each) for each in a.image_results}
    in_b = {each.number: right(each) for each in b.image_results}
    sums = sum(in_a.values()) == share_a.correct and sum(in_b.values()) == share_b.correct
    if not same_images(a, b) or in_a.keys() != in_b.keys() or not sums:
        return Measure(title, share_a, share_b)
    only_a = sum(in_a[number] and not in_b[number] for number in in_a)
    only_b = sum(in_b[number] and not in_a[number] for number in in_a)
    return Measure(title, share_a, share_b, only_a, only_b)
