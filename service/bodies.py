"""Request bodies, read within a size and a time limit: a form, JSON, or the image itself."""

import asyncio
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive

from service.errors import AdmissionError, BodyTimeoutError, BodyTooLargeError, MediaTypeError, ParameterError
from service.settings import Settings
from service.uploads import (
    IMAGE_FIELD,
    IMAGES_FIELD,
    MAX_FIELDS,
    Upload,
    check_images,
    parse_json,
    split_form,
    too_many,
)

RAW_TYPES = ("image/png", "image/jpeg", "image/webp")
FORM_TYPE = "multipart/form-data"
JSON_TYPE = "application/json"
MAX_FIELD_BYTES = 1024


async def read_upload(request: Request, settings: Settings, take: Callable[[int], None]) -> Upload:
    """Read the whole body; raises an AdmissionError, or a ParameterError when its images are missing or too many.

    Args:
        take: is told how many bytes arrived, before the next ones are asked for, and may refuse them.

    FastAPI's `max_body_size` is not used: it answers text/plain, whatever handlers are installed, when the declared
    length is too large, and has no time limit.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in (FORM_TYPE, JSON_TYPE, *RAW_TYPES):
        raise MediaTypeError(
            f"expected {FORM_TYPE} with a file field {IMAGE_FIELD!r} or file fields {IMAGES_FIELD!r}, {JSON_TYPE} with "
            f"these in base64, or a body of type {', '.join(RAW_TYPES)}; got {media_type[:64] or 'no Content-Type'!r}"
        )
    limit = settings.max_body_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    bounded = Request(request.scope, _bounded(request.receive, limit, take))
    try:
        async with asyncio.timeout(settings.body_timeout):
            upload = await _read(bounded, media_type, settings.max_images)
    except TimeoutError as error:
        raise BodyTimeoutError(f"the body did not arrive within {settings.body_timeout:g} seconds") from error
    if not upload.several and not upload.contents[0]:
        raise ParameterError("the image is empty", [(IMAGE_FIELD, "empty")])
    return upload


async def _read(request: Request, media_type: str, max_images: int) -> Upload:
    if media_type == FORM_TYPE:
        return await _read_form(request, max_images)
    body = await request.body()
    if media_type == JSON_TYPE:
        return await run_in_threadpool(parse_json, body, max_images)
    return Upload((body,))


async def _read_form(request: Request, max_images: int) -> Upload:
    try:
        async with request.form(max_files=max_images, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES) as form:
            files, options = split_form(form.multi_items())
            check_images("form", len(files[IMAGE_FIELD]), len(files[IMAGES_FIELD]), max_images)
            contents = [await file.read() for file in files[IMAGE_FIELD] + files[IMAGES_FIELD]]
    except HTTPException as error:  # Starlette's word for a form that does not parse
        if str(error.detail).startswith("Too many files"):
            raise too_many("form", max_images) from error
        raise AdmissionError(str(error.detail)) from error
    return Upload(tuple(contents), bool(files[IMAGES_FIELD]), options)


def _bounded(receive: Receive, max_bytes: int, take: Callable[[int], None]) -> Receive:
    """Count what really arrives: chunked bodies declare no length."""
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        size = len(message.get("body", b""))
        received += size
        if received > max_bytes:
            raise _too_large(max_bytes)
        take(size)
        return message

    return counted


def _too_large(max_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the body is larger than {max_bytes} bytes")
