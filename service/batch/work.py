"""The work of a batch run, part by part, wherever it runs: read, decode, answer, write."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from models.bundle import load_bundle
from models.errors import BundleError, DataError
from service.batch.answering import Answerer, Item, stream_of_key
from service.batch.outputs import part_path, write_part
from service.batch.parts import Content, Part, Source
from service.batch.question import Question
from service.batch.rows import Row, make_row
from service.decoding import decode_image, make_strict
from service.errors import DecodingError, RequestError

DECODERS = 4
DECODED_AHEAD = 64

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Found:
    """One image of a part, as it was read."""

    part: int
    index: int
    key: str
    content: Content


@dataclass(frozen=True)
class Work:
    """What every process of a run needs to know; all of it can be sent to one.

    Args:
        device: a name of PyTorch's.
    """

    source: Source
    folder: Path
    bundle: Path
    question: Question
    device: str

    def missing(self) -> Iterator[Part]:
        """The parts that are not there yet, in order."""
        for part in self.source.parts(self.question.part_size):
            if not part_path(self.folder, part.number, self.question.format).exists():
                yield part


class Processor:
    """Does the work with one copy of the bundle.

    Raises:
        BundleError: the bundle is not the question's.
    """

    def __init__(self, work: Work) -> None:
        make_strict()
        question, device = work.question, torch.device(work.device)
        self._work, self._bundle = work, load_bundle(work.bundle, device, question.runtime)
        if self._bundle.digest != question.bundle:
            raise BundleError(f"{work.bundle} has digest {self._bundle.digest}, expected {question.bundle}")
        self._plan = question.plan(self._bundle.manifest)
        streams = partial(stream_of_key, question.seed)
        self._answerer = Answerer(self._bundle, self._plan, streams, question.slots, device)

    def close(self) -> None:
        """End its threads."""
        self._answerer.close()

    def process(self, parts: Iterable[Part]) -> Iterator[Part]:
        """Each part once it is written; the first images of a part are begun beside the last ones of another.

        Raises:
            DataError: the source is not what it was when it was surveyed.
            EngineError: for a reason that is not an image's.
        """
        question, begun = self._work.question, dict[int, tuple[Part, list[Row]]]()

        def noted() -> Iterator[Part]:
            for part in parts:
                begun[part.number] = part, []
                yield part

        for item, outcome in self._answerer.answers(_ahead(self._decode, self._read(noted()))):
            part, rows = begun[item.part]
            rows.append(make_row(question.task, item, outcome, self._plan, self._bundle))
            if len(rows) == part.length:
                del begun[item.part]
                rows.sort(key=lambda row: int(row["index"]))
                write_part(self._work.folder, part.number, question.format, question.task, rows)
                yield part

    def _read(self, parts: Iterable[Part]) -> Iterator[Found]:
        for part in parts:
            count = 0
            for key, content in self._work.source.read(part):
                yield Found(part.number, part.first + count, key, content)
                count += 1
            if count != part.length:
                raise DataError(f"{part.files[0]}: expected {part.length} images, found {count}; it was changed")

    def _decode(self, found: Found) -> Item:
        question, shape = self._work.question, self._bundle.manifest.image
        image: Tensor | RequestError
        try:
            content = _bytes(found.content)
            image = decode_image(content, shape, question.max_pixels, question.options.get("resize", False))
        except DecodingError as error:
            image = error
        return Item(found.part, found.index, found.key, image)


def _bytes(content: Content) -> bytes:
    """The file's content; raises DecodingError when there is none."""
    if content is None:
        raise DecodingError("the row holds no image")
    if isinstance(content, bytes):
        return content
    try:
        return content.read_bytes()
    except OSError as error:
        raise DecodingError(f"the file can not be read: {error.strerror}") from error


def _ahead(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`function` of each item, in order, some of them computed by threads before they are asked for."""
    with ThreadPoolExecutor(DECODERS, "limpid-decoders") as pool:
        waiting = deque[Future[R]]()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > DECODED_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
