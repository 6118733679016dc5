"""What a caller asks: a route, images and options, and of which kind the answer is."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Generic, TypeVar

import httpx2
from pydantic import BaseModel

from service.client.answers import check_status, parse
from service.client.errors import InputError, ServiceProblem
from service.demo_schemas import Attacked, AttackOptions
from service.event_schemas import Progress, Queued
from service.options import ClassifyOptions, PurifyOptions, RestoreOptions
from service.restore_schemas import Restoration
from service.schemas import Classification, Classifications, Problem, Purification, Purifications
from service.system_schemas import Info

Image = bytes | str | PathLike[str]
"""A PNG, JPEG or WebP file's content, or its path."""
JSON, EVENTS = "application/json", "text/event-stream"
TIMEOUT_HEADER, REQUEST_ID_HEADER = "X-Request-Timeout", "X-Request-ID"
CLASSIFY, PURIFY, RESTORE, ATTACK = ClassifyOptions(), PurifyOptions(), RestoreOptions(), AttackOptions()
"""The service's own defaults."""

AnswerT = TypeVar("AnswerT", bound=BaseModel)
Files = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True)
class Question(Generic[AnswerT]):
    """One request, as often as it is sent.

    Args:
        fields: of the form, beside the files.
        timeout: seconds that the service may take; None for its own limit.
        request_id: the same at every try, so that the service's log shows what belongs together.
    """

    path: str
    answer: type[AnswerT]
    method: str = "POST"
    files: Files = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def request(self, accept: str) -> dict[str, Any]:
        """What httpx sends."""
        headers = {"Accept": accept, REQUEST_ID_HEADER: self.request_id}
        if self.timeout is not None:
            headers[TIMEOUT_HEADER] = f"{self.timeout:g}"
        files = [(name, ("image", content)) for name, content in self.files]
        body = {"files": files, "data": self.fields}
        return {"method": self.method, "url": self.path, "params": self.query, "headers": headers, **body}

    def read(self, response: httpx2.Response) -> AnswerT:
        """The answer; raises ServiceProblem or AnswerError."""
        check_status(response)
        return parse(self.answer, response.content)

    def read_event(self, event: httpx2.ServerSentEvent) -> Queued | Progress | AnswerT | None:
        """What an event holds, None for a kind that is not known; raises ServiceProblem or AnswerError."""
        if event.event == "error":
            raise ServiceProblem(parse(Problem, event.data))
        kinds: dict[str, type[Queued | Progress | AnswerT]] = {
            "queued": Queued,
            "progress": Progress,
            "result": self.answer,
        }
        kind = kinds.get(event.event)
        return None if kind is None else parse(kind, event.data)


def classify(image: Image, options: ClassifyOptions, timeout: float | None) -> Question[Classification]:
    """What the defence says of one image."""
    return Question("/v1/classify", Classification, files=_one(image), fields=_fields(options), timeout=timeout)


def classify_many(
    images: Sequence[Image], options: ClassifyOptions, timeout: float | None
) -> Question[Classifications]:
    """The same of several, each with a result of its own."""
    return Question("/v1/classify", Classifications, files=_many(images), fields=_fields(options), timeout=timeout)


def purify(image: Image, options: PurifyOptions, timeout: float | None) -> Question[Purification]:
    """One image after its chain."""
    return Question("/v1/purify", Purification, files=_one(image), fields=_fields(options), timeout=timeout)


def purify_many(images: Sequence[Image], options: PurifyOptions, timeout: float | None) -> Question[Purifications]:
    """Several, each with a result of its own."""
    return Question("/v1/purify", Purifications, files=_many(images), fields=_fields(options), timeout=timeout)


def restore(image: Image, mask: Image, options: RestoreOptions, timeout: float | None) -> Question[Restoration]:
    """One image, its pixels under the mask's white made anew."""
    files = (*_one(image), ("mask", _content(mask)))
    return Question("/v1/restore", Restoration, files=files, fields=_fields(options), timeout=timeout)


def attack(image: Image, options: AttackOptions) -> Question[Attacked]:
    """One image, altered so that the bare classifier errs."""
    return Question("/demo/attack", Attacked, files=_one(image), query=_fields(options))


def info() -> Question[Info]:
    """What is served, and within which limits."""
    return Question("/info", Info, method="GET")


def _one(image: Image) -> Files:
    return (("image", _content(image)),)


def _many(images: Sequence[Image]) -> Files:
    if isinstance(images, str | bytes) or not images:
        raise InputError(f"expected a sequence of at least one image, got {type(images).__name__} {images[:64]!r}")
    return tuple(("images", _content(image)) for image in images)


def _content(image: Image) -> bytes:
    if isinstance(image, bytes):
        return image
    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise InputError(f"{image}: the file can not be read: {error.strerror}") from error


def _fields(options: BaseModel) -> dict[str, str]:
    """What was set, as a form writes it."""
    given = options.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
