"""Every error as one RFC 9457 document, application/problem+json, whoever raised it."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.errors import TYPE_PREFIX, ParameterError, RequestError
from service.schemas import FieldError, Problem

MEDIA_TYPE = "application/problem+json"
# An answer echoes what a caller sent, and must not be as long as that.
MAX_ERRORS = 16
MAX_TEXT = 512
MAX_PATH = 256


def install(app: FastAPI) -> None:
    """Answer the service's, the framework's and the validator's errors with problem documents."""
    for kind in (RequestError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _handler)


def problem_response(request: Request, error: Exception) -> Response:
    """The answer to any exception; one that nobody foresaw becomes a 500 that tells nothing about it."""
    problem = problem_document(request, error)
    return JSONResponse(problem.model_dump(), problem.status, _headers(error), MEDIA_TYPE)


def problem_document(request: Request, error: Exception) -> Problem:
    """What is told of any exception."""
    if isinstance(error, RequestValidationError):
        error = parameter_error(error.errors())
    if isinstance(error, HTTPException):
        phrase = HTTPStatus(error.status_code).phrase
        return _document(request, "about:blank", error.status_code, phrase, _http_detail(request, error, phrase))
    if not isinstance(error, RequestError):
        error = RequestError("The server failed on this request; its log has the cause under this request_id.")
    return _document(request, TYPE_PREFIX + error.slug, error.status, error.title, error.detail, error.errors)


def parameter_error(items: Sequence[Mapping[str, Any]], source: str = "") -> ParameterError:
    """One error that names every parameter that pydantic refused."""
    errors = []
    for item in items:
        # A name that the caller chose may be as long as the body.
        location = ".".join(str(part)[:64] for part in ((source, *item["loc"]) if source else item["loc"]))
        unknown = item["type"] == "extra_forbidden"
        errors.append((location, "unknown parameter" if unknown else str(item["msg"])))
    return ParameterError("; ".join(f"{location}: {detail}" for location, detail in errors), errors)


async def _handler(request: Request, error: Exception) -> Response:
    return problem_response(request, error)


def _headers(error: Exception) -> dict[str, str]:
    headers = dict(error.headers or {}) if isinstance(error, RequestError | HTTPException) else {}
    if isinstance(error, RequestError) and error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return headers


def _http_detail(request: Request, error: HTTPException, phrase: str) -> str:
    if error.status_code == 404 and error.detail == phrase:
        return f"There is nothing at {_path(request)}; / lists what is here."
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "other methods")
        return f"{_path(request)} does not answer {request.method[:32]}; it answers {allowed}."
    return str(error.detail or phrase)


def _document(
    request: Request, kind: str, status: int, title: str, detail: str, errors: Sequence[tuple[str, str]] = ()
) -> Problem:
    return Problem(
        type=kind,
        title=title,
        status=status,
        detail=detail[:MAX_TEXT],
        instance=_path(request),
        request_id=request.state.request_id,
        errors=[
            FieldError(location=location[:MAX_TEXT], detail=text[:MAX_TEXT]) for location, text in errors[:MAX_ERRORS]
        ],
    )


def _path(request: Request) -> str:
    """The beginning of the path, as it stands in a URL."""
    return quote(request.scope["path"][:MAX_PATH])
