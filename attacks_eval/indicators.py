"""Signs that an evaluation, or a defence, is not what it seems.

After Carlini et al. (arXiv 1902.06705), Pintor et al. (arXiv 2106.09947), and our own.
Each looks at what was measured and says what it saw, whether it fires or not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from attacks_eval.checks import Checks
from attacks_eval.evaluation import Indicator
from attacks_eval.judge import Verdict
from attacks_eval.phases import Row
from attacks_eval.probe import REPLICATES, GradientProbe
from attacks_eval.summary import WorstCase


@dataclass(frozen=True)
class Evidence:
    """What indicators look at: the kept images as `worst`, and their verdicts once `rounded`, both by number."""

    probe: GradientProbe
    clean: Mapping[int, Verdict]
    rows: Sequence[Row]
    checks: Checks
    worst: Mapping[int, WorstCase]
    rounded: Mapping[int, Verdict]

    def white_box(self) -> list[Row]:
        """Attacks with gradients on the random defence, over all images."""
        rows = [row for row in self.rows if row.knowledge == "white box" and row.on == "all"]
        return [row for row in rows if not row.fixed_randomness]

    def right(self) -> int:
        """Images that are right when clean."""
        return sum(verdict.right for verdict in self.clean.values())


Look = Callable[[Evidence], tuple[bool | None, str]]


def indicators(evidence: Evidence) -> list[Indicator]:
    """Every indicator, those that fired first, those that could not be looked at last."""
    found = []
    for name, (title, look, advice) in INDICATORS.items():
        fired, finding = look(evidence)
        found.append(Indicator(name=name, title=title, fired=fired, finding=finding, advice=advice))
    order = {True: 0, False: 1, None: 2}
    return sorted(found, key=lambda indicator: order[indicator.fired])


def _flat(e: Evidence) -> tuple[bool | None, str]:
    if not e.probe.has_energy:
        return None, "the purifier has no energy"
    if not e.probe.piecewise_linear:
        return False, "the energy's Hessian is not zero: the exact gradient sees the purifier"
    return True, "the energy's Hessian is exactly zero, so the exact gradient through the chain is BPDA's, the identity"


def _bpda(e: Evidence) -> tuple[bool | None, str]:
    if e.probe.zero == 1.0:
        return None, f"there is no gradient ({e.probe.exact}) to compare BPDA's with"
    return e.probe.bpda_cosine < 0.9, f"cosine between the BPDA gradient and {e.probe.exact}: {e.probe.bpda_cosine:.2f}"


def _zero(e: Evidence) -> tuple[bool | None, str]:
    if not e.white_box():
        return None, "no white-box attack was run on all images"
    asked = sum(each.queries for row in e.white_box() for each in row.finished.values())
    zero = sum(each.zero_gradients for row in e.white_box() for each in row.finished.values())
    share = max(e.probe.zero, zero / asked if asked else 0.0)
    return share > 0.01, f"{100 * share:.0f} % of the gradients were zero or not finite"


def _noisy(e: Evidence) -> tuple[bool | None, str]:
    if e.probe.zero == 1.0:
        return None, f"there is no gradient ({e.probe.exact}), noisy or not"
    return (
        e.probe.eot_cosine < 0.5,
        f"cosine between two gradients of {REPLICATES} replicates each: {e.probe.eot_cosine:.2f}",
    )


def _random(e: Evidence) -> tuple[bool | None, str]:
    single = sum(verdict.single for verdict in e.clean.values()) / len(e.clean)
    mean = e.right() / len(e.clean)
    return (
        mean - single > 0.15,
        f"clean accuracy of one draw {100 * single:.1f} %, of the mean logits {100 * mean:.1f} %",
    )


def _black_box(e: Evidence) -> tuple[bool | None, str]:
    if not e.white_box():
        return None, "no white-box attack was run on all images"
    seen = set[int]().union(*(row.broken for row in e.white_box()))
    blind = {n: row.name for row in e.rows if row.knowledge != "white box" for n in row.broken - seen}
    return len(blind) > 0.02 * len(e.clean), f"{len(blind)} images were broken without gradients and not with them"


def _loss(e: Evidence) -> tuple[bool | None, str]:
    searches = [each for row in e.white_box() for each in row.finished.values() if not each.broken]
    losses = [(each.early_loss, each.late_loss) for each in searches]
    moved = [late - early for early, late in losses if early is not None and late is not None]
    if not moved:
        return None, "no white-box search of ours ended without a break"
    stuck = sum(change <= 0 for change in moved)
    text = f"the loss did not grow in {stuck} of {len(moved)} searches that ended unbroken"
    return stuck > 0.2 * len(moved), text


def _unfinished(e: Evidence) -> tuple[bool | None, str]:
    late, broken = 0, 0
    for row in e.white_box():
        steps = [each.broken_at for each in row.finished.values() if each.broken_at]
        late, broken = late + sum(step > 0.8 * row.queries for step in steps), broken + len(steps)
    if not broken:
        return None, "no white-box attack broke an image"
    return late > 0.1 * broken, f"{late} of {broken} breaks came in the last fifth of the attack's steps"


def _unbounded(e: Evidence) -> tuple[bool | None, str]:
    c = e.checks
    if c.attacked == 0:
        return None, "no clean image was right"
    return c.survivors > 0, f"{c.survivors} of {c.attacked} images survive a budget of {c.budget:g}/255"


def _frozen(e: Evidence) -> tuple[bool | None, str]:
    rows = [row for row in e.rows if row.fixed_randomness]
    if not rows:
        return None, "no attack on frozen noise was run"
    if not e.white_box():
        return None, "no white-box attack was run on fresh noise"
    frozen, fresh = (max(len(row.broken) for row in each) for each in (rows, e.white_box()))
    text = f"of {e.right()} images, {frozen} break with the noise frozen, {fresh} by the best attack on fresh noise"
    return fresh - frozen > 0.1 * max(1, e.right()), text


def _undecided(e: Evidence) -> tuple[bool | None, str]:
    verdicts = [*e.clean.values(), *(each.verdict for row in e.white_box() for each in row.finished.values())]
    open_ = sum(not verdict.decided for verdict in verdicts)
    return open_ > 0.1 * len(verdicts), f"{open_} of {len(verdicts)} verdicts were still open after the last stage"


def _noise(e: Evidence) -> tuple[bool | None, str]:
    rows = [row for row in e.rows if row.knowledge == "none"]
    if not rows:
        return None, "random noise was not tried"
    broken = len(set[int]().union(*(row.broken for row in rows)))
    return broken > 0.1 * max(1, e.right()), f"random noise of the same budget broke {broken} of {e.right()} images"


def _rounding(e: Evidence) -> tuple[bool | None, str]:
    # An open break is half chance, and goes away when it is judged again, rounded or not.
    broken = [number for number, kept in e.worst.items() if kept.verdict.broken and kept.verdict.decided]
    if not broken:
        return None, "no image was broken beyond doubt"
    back = sum(e.rounded[number].right for number in broken)
    text = f"{back} of {len(broken)} images that were broken beyond doubt are right again after rounding to 256 levels"
    return back > 0.1 * len(broken), text


def _softmax(e: Evidence) -> tuple[bool | None, str]:
    return e.probe.softmax, "outputs look like probabilities" if e.probe.softmax else "outputs are logits"


INDICATORS: dict[str, tuple[str, Look, str]] = {
    "flat-energy": (
        "Exact gradients are blind",
        _flat,
        "Judge the defence by the smooth-twin rows; a full-gradient row would be BPDA under another name.",
    ),
    "bpda-misleads": (
        "BPDA points elsewhere",
        _bpda,
        "Do not quote the BPDA rows alone.",
    ),
    "zero-gradient": (
        "Gradients vanish",
        _zero,
        "The defence masks gradients: trust black-box and transfer rows, and attack with bpda or a smooth surrogate.",
    ),
    "noisy-gradient": (
        "Gradients are mostly noise",
        _noisy,
        "Raise the EOT replicates until two averages agree.",
    ),
    "random-answers": (
        "One draw is far from the mean",
        _random,
        "Report single-draw accuracy; robustness that comes from random answers alone is not robustness.",
    ),
    "black-box-wins": (
        "Attacks without gradients break what gradient attacks do not",
        _black_box,
        "The gradient attacks are too weak: other losses, more steps, restarts, better gradients.",
    ),
    "loss-stuck": (
        "The attack does not raise its loss",
        _loss,
        "Check the gradients, the step size and the loss's scale.",
    ),
    "unfinished": (
        "The attack was still finding breaks when it ended",
        _unfinished,
        "Run more steps.",
    ),
    "unbounded-survivors": (
        "Images survive an attacker without bounds",
        _unbounded,
        "No defence can: the attack is broken.",
    ),
    "frozen-survivors": (
        "Frozen noise is harder to attack than fresh noise",
        _frozen,
        "A deterministic defence must be the easier one: the attack is broken.",
    ),
    "undecided": (
        "Verdicts stay open",
        _undecided,
        "Judge with more replicates.",
    ),
    "noise-breaks": (
        "Random noise breaks images",
        _noise,
        "The defence is fragile without any attacker; look at the clean accuracy under noise.",
    ),
    "rounding-saves": (
        "Breaks vanish when pixels are rounded",
        _rounding,
        "The attack lives between the 256 levels that a file can hold; quote the rounded number.",
    ),
    "softmax-output": (
        "Outputs are probabilities",
        _softmax,
        "Attack the logits: a softmax flattens gradients.",
    ),
}
