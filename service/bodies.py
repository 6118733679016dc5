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
    MASK_FIELD,
    MAX_FIELDS,
    Upload,
    check_images,
    check_masks,
    parse_json,
    split_form,
    too_many,
)

RAW_TYPES = ("image/png", "image/jpeg", "image/webp")
FORM_TYPE = "multipart/form-data"
JSON_TYPE = "application/json"
MAX_FIELD_BYTES = 1024


async def read_upload(request: Request, settings: Settings, take: Callable[[int], None], masked: bool) -> Upload:
    """Read the whole body; raises an AdmissionError, or a ParameterError when its images are missing or too many.

    Args:
        take: is told how many bytes arrived, before the next ones are asked for, and may refuse them.
        masked: whether a mask must come with the images, which a body of one image can not hold.

    FastAPI's `max_body_size` is not used: it answers text/plain, whatever handlers are installed, when the declared
    length is too large, and has no time limit.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    _check_type(media_type, masked)
    limit = settings.max_body_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    bounded = Request(request.scope, _bounded(request.receive, limit, take))
    try:
        async with asyncio.timeout(settings.body_timeout):
            upload = await _read(bounded, media_type, settings.max_images, masked)
    except TimeoutError as error:
        raise BodyTimeoutError(f"the body did not arrive within {settings.body_timeout:g} seconds") from error
    if not upload.several and not upload.contents[0]:
        raise ParameterError("the image is empty", [(IMAGE_FIELD, "empty")])
    return upload


def _check_type(media_type: str, masked: bool) -> None:
    if media_type in (FORM_TYPE, JSON_TYPE, *(() if masked else RAW_TYPES)):
        return
    files = f"a file field {IMAGE_FIELD!r} or file fields {IMAGES_FIELD!r}"
    files += f", and a file field {MASK_FIELD!r}" if masked else ""
    raw = "" if masked else f", or a body of type {', '.join(RAW_TYPES)}"
    raise MediaTypeError(
        f"expected {FORM_TYPE} with {files}, {JSON_TYPE} with these in base64{raw}; "
        f"got {media_type[:64] or 'no Content-Type'!r}"
    )


async def _read(request: Request, media_type: str, max_images: int, masked: bool) -> Upload:
    if media_type == FORM_TYPE:
        return await _read_form(request, max_images, masked)
    body = await request.body()
    if media_type == JSON_TYPE:
        return await run_in_threadpool(parse_json, body, max_images, masked)
    return Upload((body,))


async def _read_form(request: Request, max_images: int, masked: bool) -> Upload:
    most = max_images + masked
    try:
        async with request.form(max_files=most, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES) as form:
            files, options = split_form(form.multi_items(), masked)
            masks = files.get(MASK_FIELD, [])
            check_images("form", len(files[IMAGE_FIELD]), len(files[IMAGES_FIELD]), max_images)
            check_masks("form", len(masks), masked)
            mask = await masks[0].read() if masks else None
            contents = [await file.read() for file in files[IMAGE_FIELD] + files[IMAGES_FIELD]]
    except HTTPException as error:  # Starlette's word for a form that does not parse
        if str(error.detail).startswith("Too many files"):
            raise too_many("form", max_images) from error
        raise AdmissionError(str(error.detail)) from error
    return Upload(tuple(contents), bool(files[IMAGES_FIELD]), options, mask=mask)


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
