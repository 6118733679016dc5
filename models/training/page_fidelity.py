"""RUN/fidelity.jsonl: what the samples of a run scored, update by update; one line a metric."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from models.config import Frozen
from models.errors import DataError
from models.evaluation.fidelity import Score


class FidelityLine(Frozen):
    """One metric of `count` samples that were made at `update`, and its floor: the same of real images."""

    update: int
    name: str
    value: float
    floor: float
    count: int


def append_fidelity(folder: Path, update: int, scores: Sequence[Score]) -> None:
    """Add a result of `python -m models fidelity` to the run in `folder`."""
    path = folder / "fidelity.jsonl"
    # A line that a killed program left behind would take the next one with it.
    begin = "\n" if path.exists() and not path.read_text().endswith("\n") and path.stat().st_size else ""
    lines = [
        FidelityLine(
            update=update, name=each.name, value=each.samples.value, floor=each.floor.value, count=each.count
        ).model_dump_json()
        for each in scores
    ]
    with path.open("a") as stream:
        stream.write(begin + "".join(line + "\n" for line in lines))


def read_fidelity(folder: Path) -> list[FidelityLine]:
    """Every whole line, by update; of one metric, update and count the last line holds; none where there is no file.

    Raises:
        DataError: a line is whole and not a result; names it.
    """
    path = folder / "fidelity.jsonl"
    found: dict[tuple[str, int, int], FidelityLine] = {}
    for number, text in enumerate(path.read_text().splitlines() if path.exists() else [], start=1):
        if not text.endswith("}"):  # half a line, of a program that was killed
            continue
        try:
            line = FidelityLine.model_validate_json(text)
        except ValidationError as error:
            expected = ", ".join(FidelityLine.model_fields)
            raise DataError(f"{path}: line {number} is {text[:80]!r}; expected {expected}") from error
        found[line.name, line.update, line.count] = line
    return sorted(found.values(), key=lambda line: line.update)
