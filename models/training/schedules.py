"""Values that change as learning goes on: piecewise constant, written `[[first_update, value], ...]` or as a number."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

V = TypeVar("V", int, float)


def value_at(schedule: Sequence[tuple[int, V]], update: int) -> V:
    """The value of the last pair whose first update is not after `update`, which counts from 0."""
    return [value for first, value in schedule if first <= update][-1]


def changes(schedule: Sequence[tuple[int, V]]) -> list[int]:
    """The updates, from 1 on, at which the value is another than before."""
    pairs = pairwise(schedule)
    return [first for (_, before), (first, value) in pairs if value != before]


def _from_number(given: Any) -> Any:
    """A bare number is a constant."""
    return ((0, given),) if isinstance(given, int | float) else given


def _ascending(pairs: tuple[tuple[int, V], ...]) -> tuple[tuple[int, V], ...]:
    firsts = [first for first, _ in pairs]
    if firsts[0] != 0 or firsts != sorted(set(firsts)):
        raise ValueError(f"a schedule must start at update 0 and ascend, got updates {firsts}")
    return pairs


_Checks = (Field(min_length=1), BeforeValidator(_from_number), AfterValidator(_ascending))

Steps = Annotated[tuple[tuple[int, Annotated[int, Field(ge=1)]], ...], *_Checks]
"""A schedule of Langevin steps."""
Rates = Annotated[tuple[tuple[int, Annotated[float, Field(gt=0)]], ...], *_Checks]
"""A schedule of learning rates: annealing is a rate that falls."""
Probabilities = Annotated[tuple[tuple[int, Annotated[float, Field(ge=0, le=1)]], ...], *_Checks]
"""A schedule of probabilities."""
