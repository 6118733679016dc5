"""What /docs says beyond the types: every kind of body and answer, and problem documents for every error."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from starlette.responses import PlainTextResponse

from service.bodies import FORM_TYPE, JSON_TYPE, RAW_TYPES
from service.options import ClassifyOptions, PurifyOptions, RestoreOptions
from service.problems import MEDIA_TYPE
from service.schemas import Problem
from service.uploads import IMAGE_FIELD, IMAGES_FIELD, MASK_FIELD

DESCRIPTION = """Limpid purifies images with Langevin dynamics of an energy-based model before a classifier sees them.

Send an image as the file field `image` of a form, as the body itself, or as base64 in JSON:

    curl -F image=@image.png http://127.0.0.1:8000/classify
    curl --data-binary @image.png -H 'Content-Type: image/png' 'http://127.0.0.1:8000/purify?steps=100' -o purified.png
    curl --json '{"image": "iVBORw0...", "preset": "fast"}' http://127.0.0.1:8000/classify

**Several images** go into the file fields `images` (or a JSON list), and have one result each: an image that can not be
used fails alone, with the problem document that it would have got. The field's name decides on the answer's shape.

    curl -F images=@a.png -F images=@b.png http://127.0.0.1:8000/classify

**Images.** PNG, JPEG or WebP, one still 8-bit picture of the bundle's size, told by its content, not by its declared
type. The EXIF orientation is applied; other metadata and colour profiles are ignored. An alpha channel must be fully
opaque. Grey and CMYK pictures become RGB; a bundle for grey images refuses colours. `resize=true` accepts another size
by stretching it, which changes the pixels that are purified and classified. The server never fetches URLs.

**Restoring.** /restore wants a `mask` beside the image, one file for all of several: a picture of the same size, white
(a mean of its channels of 128 or above) where pixels are lost, black where they are known and come back unchanged.
The map of uncertainty is how far the replicates disagree, which can be far less than how far all of them are wrong.

    curl -F image=@image.png -F mask=@mask.png http://127.0.0.1:8000/restore -o restored.png

**Options** are query parameters, form fields, or keys of the JSON object; each may be given once.

**Progress.** `Accept: text/event-stream` turns the answer into events: `queued`, `progress`, then `result`, which holds
the JSON answer, or `error`, which holds a problem document. What is refused at once is an ordinary problem.

**Time.** `X-Request-Timeout: 5` gives up after five seconds with 504. Leaving frees the engine at once.

**Distances** are measured between the decoded (and resized) upload and the returned PNG, after rounding to 8 bits.

**Randomness.** Every request draws fresh noise, so answers vary between calls. A `seed` fixes it, for keys with the
scope `admin` only, or for everybody on a server that asks for no keys and that only its own machine reaches: a fixed
seed turns a stochastic defence into a deterministic one, which is far easier to attack.

**Errors** are `application/problem+json` (RFC 9457) with the `request_id` of the `X-Request-ID` header.
"""
BINARY = {"type": "string", "format": "binary"}
BASE64 = {"type": "string", "format": "byte"}
# One grey pixel.
EXAMPLE_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
# A black and a white one.
EXAMPLE_MASK = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAABCAAAAADRSSBWAAAAC0lEQVR42mNg+A8AAQIBANEay48AAAAASUVORK5CYII="
EXAMPLE_EVENTS = (
    'event: queued\ndata: {"cost":1600,"estimated_seconds":2}\n\n'
    'event: progress\ndata: {"steps_done":400,"steps_total":1600,"fraction":0.25}\n\n'
    'event: result\ndata: {"predictions":[...],...}\n\n'
)
COMMON_ERRORS = (400, 401, 403, 408, 413, 415, 422, 429, 500, 503, 504)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Problem documents as responses of these statuses."""
    return {status: {"model": Problem, "description": HTTPStatus(status).phrase} for status in statuses}


def describe_problems(app: FastAPI) -> None:
    """Let the application's OpenAPI give problem documents their media type, which FastAPI can not be told."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            for path in generate()["paths"].values():
                for operation in path.values():
                    _relabel(operation["responses"])
        schema: dict[str, Any] = generate()
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def _relabel(responses: Mapping[str, dict[str, Any]]) -> None:
    for status, response in responses.items():
        if int(status) >= 400:
            (content,) = response["content"].values()
            response["content"] = {MEDIA_TYPE: content}


def _fields(options: type[PurifyOptions], image: dict[str, Any]) -> dict[str, Any]:
    """An object of either `image` or `images`, the mask where there is one, and the options."""
    images = {"type": "array", "items": image, "minItems": 1}
    mask = {MASK_FIELD: image} if options.takes_mask else {}
    fields = {IMAGE_FIELD: image, IMAGES_FIELD: images} | mask | options.model_json_schema()["properties"]
    either = [{"required": [IMAGE_FIELD, *mask]}, {"required": [IMAGES_FIELD, *mask]}]
    return {"type": "object", "oneOf": either, "properties": fields, "additionalProperties": False}


def _body(options: type[PurifyOptions]) -> dict[str, Any]:
    form = _fields(options, BINARY | {"description": "PNG, JPEG or WebP file."})
    json = _fields(options, BASE64 | {"description": "PNG, JPEG or WebP file in base64."})
    rest = {"resize": True} | ({MASK_FIELD: EXAMPLE_MASK} if options.takes_mask else {})
    one = {"summary": "One image", "value": {IMAGE_FIELD: EXAMPLE_PNG} | rest}
    two = {"summary": "Two images", "value": {IMAGES_FIELD: [EXAMPLE_PNG, EXAMPLE_PNG]} | rest}
    content: dict[str, Any] = {
        FORM_TYPE: {"schema": form},
        JSON_TYPE: {"schema": json, "examples": {"one": one, "several": two}},
    }
    raw = {} if options.takes_mask else {kind: {"schema": BINARY} for kind in RAW_TYPES}
    return {"requestBody": {"required": True, "content": content | raw}}


def _operation(options: type[PurifyOptions], description: str, **content: Any) -> dict[str, Any]:
    events = {"schema": {"type": "string"}, "example": EXAMPLE_EVENTS}
    answer = {"description": description, "content": {"text/event-stream": events} | content}
    return {"openapi_extra": _body(options), "responses": problems(*COMMON_ERRORS) | {200: answer}}


CLASSIFY_DOC = _operation(
    ClassifyOptions, "What the defence says. Headers: X-Model-Digest, X-Limpid-Preset, X-Limpid-Steps, Server-Timing."
)
PURIFY_DOC = _operation(
    PurifyOptions,
    "The purified image. Headers: X-Model-Digest, X-Limpid-Preset, X-Limpid-Steps, Server-Timing; of one image also "
    "X-Limpid-L2 and X-Limpid-Linf-255.",
    **{"image/png": {"schema": BINARY}},
)
RESTORE_DOC = _operation(
    RestoreOptions,
    "The restored image. Headers: X-Model-Digest, X-Limpid-Preset, X-Limpid-Steps, Server-Timing; of one image also "
    "X-Limpid-Restored-Pixels and X-Limpid-Spread-255.",
    **{"image/png": {"schema": BINARY}},
)
METRICS_DOC: dict[str, Any] = {
    "response_class": PlainTextResponse,
    "responses": problems(401, 403)
    | {200: {"content": {"text/plain": {"schema": {"type": "string"}, "example": "ebm_steps_total 51200.0\n"}}}},
}
