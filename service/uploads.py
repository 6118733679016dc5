"""Request bodies: read within a size and a time limit, from multipart/form-data or as the image itself."""

import asyncio
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive

from service.errors import AdmissionError, BodyTimeoutError, BodyTooLargeError, MediaTypeError, ParameterError

RAW_TYPES = ("image/png", "image/jpeg", "image/webp")
FORM_TYPE = "multipart/form-data"
IMAGE_FIELD = "image"
MAX_FIELDS = 16
MAX_FIELD_BYTES = 1024


@dataclass(frozen=True)
class Upload:
    """The image file's bytes and the form's other fields, in order."""

    content: bytes
    fields: tuple[tuple[str, str], ...] = ()


async def read_upload(request: Request, max_bytes: int, timeout: float) -> Upload:
    """Read the whole body; raises an AdmissionError, or a ParameterError when there is no image in it.

    FastAPI's `max_body_size` is not used: it answers text/plain, whatever handlers are installed, when the declared
    length is too large, and has no time limit.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != FORM_TYPE and media_type not in RAW_TYPES:
        raise MediaTypeError(
            f"expected {FORM_TYPE} with a file field {IMAGE_FIELD!r}, or a body of type {', '.join(RAW_TYPES)}; "
            f"got {media_type[:64] or 'no Content-Type'!r}"
        )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    bounded = Request(request.scope, _bounded(request.receive, max_bytes))
    try:
        async with asyncio.timeout(timeout):
            upload = await _read_form(bounded) if media_type == FORM_TYPE else Upload(await bounded.body())
    except TimeoutError as error:
        raise BodyTimeoutError(f"the body did not arrive within {timeout:g} seconds") from error
    if not upload.content:
        raise ParameterError("the image is empty", [(IMAGE_FIELD, "empty")])
    return upload


def _bounded(receive: Receive, max_bytes: int) -> Receive:
    """Count what really arrives: chunked bodies declare no length."""
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise _too_large(max_bytes)
        return message

    return counted


async def _read_form(request: Request) -> Upload:
    try:
        async with request.form(max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES) as form:
            content: bytes | None = None
            fields: list[tuple[str, str]] = []
            for name, value in form.multi_items():
                if isinstance(value, UploadFile) != (name == IMAGE_FIELD):
                    expected = "must be a file" if name == IMAGE_FIELD else f"unknown file; its field is {IMAGE_FIELD}"
                    raise ParameterError(f"{name[:64]}: {expected}", [(f"form.{name[:64]}", expected)])
                if isinstance(value, UploadFile):
                    content = await value.read()
                else:
                    fields.append((name, value))
    except HTTPException as error:  # Starlette's word for a form that does not parse
        raise AdmissionError(str(error.detail)) from error
    if content is None:
        raise ParameterError(f"{IMAGE_FIELD}: the form has no such file", [(f"form.{IMAGE_FIELD}", "missing")])
    return Upload(content, tuple(fields))


def _too_large(max_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the body is larger than {max_bytes} bytes")
