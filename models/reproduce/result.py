"""What an experiment found, beside what its paper says."""

from typing import Any, Literal

from models.config import Frozen


class Number(Frozen):
    """One number of the paper and ours; None where one of the two has none.

    Args:
        what: of which model, in which unit.
        recalled: whether the paper's number is from memory, and was not checked.
        ours_spread: of our number, and `spread` says what it is, for instance "standard deviation of 10 runs".
    """

    what: str
    paper: float | None
    ours: float | None
    paper_spread: float | None = None
    ours_spread: float | None = None
    spread: str | None = None
    unit: str = ""
    recalled: bool = False


class Finding(Frozen):
    """What an experiment's module returns.

    Args:
        source: where the paper says it, and how sure we are of its number.
        setting: the size of ours: data, network, updates, chains.
        why: what explains the distance between the two.
        pictures: files in the run's folder, the first of them its figure.
        files: others that are published beside them: weights, and all that was measured.
        details: everything else that was measured or set.
    """

    title: str
    source: str
    numbers: tuple[Number, ...]
    setting: str
    why: str
    pictures: tuple[str, ...]
    files: tuple[str, ...] = ()
    cpu_hours: float
    details: dict[str, Any] = {}


class Reproduction(Finding):
    """A finished experiment; `command` remakes it."""

    kind: Literal["reproduction"] = "reproduction"
    name: str
    command: str
    commit: str
    torch: str
