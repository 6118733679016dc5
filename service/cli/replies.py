"""What became of each file, as a row of JSON or as a line for people; the same wherever it was computed."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from service.answer_arguments import with_flags
from service.errors import TYPE_PREFIX, DecodingError, RequestError, ServiceError
from service.schemas import ClassifiedImage, PurifiedImage

Task = Literal["purify", "classify"]


class SomeFailed(ServiceError):
    """Some files have no answer; the others do."""


@dataclass(frozen=True)
class Refusal:
    """Why a file has no answer, as the service's problem document has it, but that `detail` names flags."""

    status: int
    type: str
    title: str
    detail: str

    @classmethod
    def of(cls, error: RequestError) -> "Refusal":
        """What the service would answer."""
        return cls(error.status, TYPE_PREFIX + error.slug, error.title, with_flags(error.detail))


@dataclass(frozen=True)
class Reply:
    """What became of one file.

    Args:
        context: the preset, its steps and the bundle that answered; empty without an answer.
    """

    file: Path
    answer: ClassifiedImage | PurifiedImage | Refusal
    context: Mapping[str, str | int]

    def row(self, out: Path | None) -> dict[str, Any]:
        """For JSON; `out` is where the purified image is."""
        head: dict[str, Any] = {"file": readable(self.file)}
        if isinstance(self.answer, Refusal):
            problem = {"type": self.answer.type, "title": self.answer.title, "detail": self.answer.detail}
            return {**head, "status": self.answer.status, "problem": problem}
        kind = ClassifiedImage if isinstance(self.answer, ClassifiedImage) else PurifiedImage
        said = self.answer.model_dump(mode="json")
        fields = {name: said[name] for name in kind.model_fields if name != "png_base64"}
        written = {} if out is None else {"out": readable(out)}
        return {**head, "status": 200, **written, **fields, **self.context}

    def line(self, out: Path | None) -> str:
        """For people."""
        name, answer = readable(self.file), self.answer
        if isinstance(answer, Refusal):
            return f"{name}: {answer.title}: {answer.detail}"
        if isinstance(answer, PurifiedImage):
            moved = f"moved by L2 {answer.distance.l2:.3f}, L-infinity {answer.distance.linf_255:g}/255"
            return f"{name}: {readable(out or Path())}, {moved} in {answer.mean_steps:g} steps"
        first, *_ = answer.predictions
        numbers = {"agreement": answer.agreement, "suspicion": answer.suspicion, "ood": answer.ood}
        said = [f"{key} {value:.2f}" for key, value in numbers.items() if value is not None]
        if answer.certificate is not None:
            certificate = answer.certificate
            said.append("not certified" if certificate.abstained else f"certified L2 {certificate.radius_l2:.3f}")
        if answer.undefended is not None:
            said.append(f"undefended {answer.undefended.label} {answer.undefended.probability:.3f}")
        probability = "" if first.probability is None else f" {first.probability:.3f}"
        return f"{name}: " + ", ".join([first.label + probability, *said])


def read_file(path: Path) -> bytes:
    """The file's content; raises DecodingError when there is none to be had."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DecodingError(f"the file can not be read: {error.strerror}") from error


def readable(path: Path) -> str:
    """A file's name as text that every output can hold; bytes of it that are no UTF-8 are escaped."""
    return os.fsencode(path).decode(errors="backslashreplace")
