"""What a body's fields mean: image files and the options beside them, from a form or from JSON.

The field's name says how many images there are: `image` is one and has one answer, `images` have a list of answers.
Where a route takes a `mask`, it is one file, for all of them.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from starlette.datastructures import UploadFile

from service.errors import AdmissionError, ParameterError

IMAGE_FIELD, IMAGES_FIELD, MASK_FIELD = "image", "images", "mask"
MAX_FIELDS = 16
STRUCTURE = b'[]{},:"'

Source = Literal["form", "body"]
Options = tuple[tuple[str, object], ...]


@dataclass(frozen=True)
class Upload:
    """Image files' bytes, whether they came as `images`, the options beside them, in order, and the mask's bytes."""

    contents: tuple[bytes, ...]
    several: bool = False
    options: Options = ()
    source: Source = "form"
    mask: bytes | None = None


def check_images(source: Source, single: int, several: int, max_images: int) -> None:
    """Raise ParameterError unless there is one `image`, or from 1 to `max_images` `images`."""
    if single and several:
        raise refused(source, IMAGE_FIELD, f"given together with {IMAGES_FIELD}; send one or the other")
    if single > 1:
        raise refused(source, IMAGE_FIELD, f"given twice; {IMAGES_FIELD} takes several and answers with a list")
    if several > max_images:
        raise too_many(source, max_images)
    if not single and not several:
        raise refused(source, IMAGE_FIELD, f"the {source} has no such file, and no {IMAGES_FIELD}")


def check_masks(source: Source, masks: int, masked: bool) -> None:
    """Raise ParameterError unless there is one mask where a route takes one."""
    if masked and masks != 1:
        raise refused(source, MASK_FIELD, "given twice" if masks else f"the {source} has no such file")


def split_form(
    items: Sequence[tuple[str, UploadFile | str]], masked: bool
) -> tuple[dict[str, list[UploadFile]], Options]:
    """The form's files by field, and its options; raises ParameterError when one is taken for the other.

    Args:
        masked: whether a mask is one of the fields.
    """
    names = (IMAGE_FIELD, IMAGES_FIELD, *((MASK_FIELD,) if masked else ()))
    files: dict[str, list[UploadFile]] = {name: [] for name in names}
    options: list[tuple[str, object]] = []
    for name, value in items:
        if isinstance(value, UploadFile) != (name in files):
            expected = f"unknown file; its field is {IMAGE_FIELD}, or {IMAGES_FIELD} for several"
            expected += f", and beside it {MASK_FIELD}" if masked else ""
            raise refused("form", name[:64], "must be a file" if name in files else expected)
        if isinstance(value, UploadFile):
            files[name].append(value)
        else:
            options.append((name, value))
    return files, tuple(options)


def parse_json(body: bytes, max_images: int, masked: bool = False) -> Upload:
    """{"image": base64} or {"images": [base64, ...]}, for some routes "mask": base64, with options beside them.

    Raises AdmissionError for what is not a JSON object, ParameterError for what is wrong with its images.
    """
    _check_structure(body, max_images)
    try:
        fields = json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise AdmissionError(f"the body is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise AdmissionError(f"expected a JSON object, got {type(fields).__name__}")
    if len(fields) > MAX_FIELDS:
        raise AdmissionError(f"the JSON object has {len(fields)} fields, at most {MAX_FIELDS} are accepted")
    image, images = fields.pop(IMAGE_FIELD, None), fields.pop(IMAGES_FIELD, [])
    if not isinstance(images, list):
        raise refused("body", IMAGES_FIELD, f"expected a list of base64 strings, got {type(images).__name__}")
    mask_text = fields.pop(MASK_FIELD, None) if masked else None
    check_images("body", int(image is not None), len(images), max_images)
    check_masks("body", int(mask_text is not None), masked)
    mask = None if mask_text is None else _decode(MASK_FIELD, mask_text)
    if image is not None:
        return Upload((_decode(IMAGE_FIELD, image),), False, tuple(fields.items()), "body", mask)
    contents = tuple(_decode(f"{IMAGES_FIELD}.{index}", text) for index, text in enumerate(images))
    return Upload(contents, True, tuple(fields.items()), "body", mask)


def too_many(source: Source, max_images: int) -> ParameterError:
    """More images than the server takes in one request."""
    return refused(source, IMAGES_FIELD, f"more than this server's {max_images} images")


def refused(source: Source, name: str, detail: str) -> ParameterError:
    """An error about one field of the body."""
    return ParameterError(f"{name}: {detail}", [(f"{source}.{name}", detail)])


def _check_structure(body: bytes, max_images: int) -> None:
    """Raise AdmissionError for more values than a request needs, without parsing them.

    A parser holds the interpreter's lock, and a few megabytes of empty lists would keep it for seconds. Base64 has none
    of these bytes.
    """
    most = 8 * MAX_FIELDS + 4 * max_images
    marks = len(body) - len(body.translate(None, STRUCTURE))
    if marks > most:
        raise AdmissionError(
            f"the JSON body has {marks} brackets, quotes, colons and commas; a request of at most {MAX_FIELDS} fields "
            f"and {max_images} images has no more than {most}"
        )


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of text that UTF-8 can hold; a key given twice raises ParameterError: readers disagree on it."""
    fields: dict[str, Any] = {}
    for name, value in pairs:
        for text in (name, value):
            if isinstance(text, str):
                text.encode()  # half of a surrogate pair raises
        if name in fields:
            raise refused("body", name[:64], "given twice")
        fields[name] = value
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _decode(name: str, text: Any) -> bytes:
    if not isinstance(text, str):
        raise refused("body", name, f"expected a base64 string, got {type(text).__name__}")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise refused("body", name, "expected plain base64 (RFC 4648, padded, without a data: prefix)") from error
