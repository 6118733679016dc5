"""What /docs says beyond the types: both kinds of body, the PNG answer, and problem documents for every error."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from service.problems import MEDIA_TYPE
from service.schemas import ClassifyOptions, Problem, PurifyOptions
from service.uploads import FORM_TYPE, IMAGE_FIELD, RAW_TYPES

DESCRIPTION = """Limpid purifies an image with Langevin dynamics of an energy-based model before a classifier sees it.

Send an image as the file field `image` of a form, or as the body itself:

    curl -F image=@image.png http://127.0.0.1:8000/classify
    curl --data-binary @image.png -H 'Content-Type: image/png' 'http://127.0.0.1:8000/purify?steps=100' -o purified.png

**Images.** PNG, JPEG or WebP, one still 8-bit picture of the bundle's size, told by its content, not by its declared
type. The EXIF orientation is applied; other metadata and colour profiles are ignored. An alpha channel must be fully
opaque. Grey and CMYK pictures become RGB; a bundle for grey images refuses colours. `resize=true` accepts another size
by stretching it, which changes the pixels that are purified and classified. The server never fetches URLs.

**Distances** are measured between the decoded (and resized) upload and the returned PNG, after rounding to 8 bits.

**Randomness.** Every request draws fresh noise that callers can not choose, so answers vary between calls.

**Errors** are `application/problem+json` (RFC 9457) with the `request_id` of the `X-Request-ID` header.
"""
BINARY = {"type": "string", "format": "binary"}
COMMON_ERRORS = (400, 408, 413, 415, 422, 500, 503)


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
            response["content"] = {MEDIA_TYPE: response["content"].pop("application/json")}


def _body(options: type[BaseModel]) -> dict[str, Any]:
    image = BINARY | {"description": "PNG, JPEG or WebP file."}
    fields = {IMAGE_FIELD: image} | options.model_json_schema()["properties"]
    form = {"type": "object", "required": [IMAGE_FIELD], "properties": fields, "additionalProperties": False}
    content: dict[str, Any] = {FORM_TYPE: {"schema": form}} | {kind: {"schema": BINARY} for kind in RAW_TYPES}
    return {"requestBody": {"required": True, "content": content}}


CLASSIFY_DOC: dict[str, Any] = {"openapi_extra": _body(ClassifyOptions), "responses": problems(*COMMON_ERRORS)}
PURIFY_DOC: dict[str, Any] = {
    "openapi_extra": _body(PurifyOptions),
    "responses": problems(*COMMON_ERRORS)
    | {
        200: {
            "description": "The purified image. Headers: X-Model-Digest, X-Limpid-Preset, X-Limpid-Steps, X-Limpid-L2, "
            "X-Limpid-Linf-255, Server-Timing.",
            "content": {"image/png": {"schema": BINARY}},
        }
    },
}
