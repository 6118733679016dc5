"""Counting what was written: every image of the source has one row, answered or failed, and no image has two."""

from dataclasses import dataclass

from models.errors import CheckpointError
from service.batch.outputs import part_path, read_statuses
from service.batch.rows import ANSWERED
from service.batch.work import Work


@dataclass(frozen=True)
class Tally:
    """Rows of a finished output."""

    answered: int
    failed: int


def count_output(work: Work) -> Tally:
    """Read every part back; raises CheckpointError unless its rows are the source's images, each once, in order."""
    question, answered, expected = work.question, 0, 0
    for part in work.source.parts(question.part_size):
        path = part_path(work.folder, part.number, question.format)
        if not path.exists():
            raise CheckpointError(f"{path} is missing; is {work.folder} the same folder for every machine?")
        rows = list(read_statuses(work.folder, part.number, question.format))
        indices = [index for index, _ in rows]
        if indices != list(range(part.first, part.first + part.length)):
            raise CheckpointError(
                f"{path} does not hold images {part.first} to {part.first + part.length - 1} once each"
            )
        answered += sum(status == ANSWERED for _, status in rows)
        expected += part.length
    if expected != question.images:
        raise CheckpointError(f"{work.source.root} had {question.images} images and has {expected} now")
    return Tally(answered, expected - answered)
