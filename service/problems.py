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

from service.errors import ParameterError, RequestError
from service.schemas import FieldError, Problem

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:limpid:problem:"


def install(app: FastAPI) -> None:
    """Answer the service's, the framework's and the validator's errors with problem documents."""
    for kind in (RequestError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _handler)


def problem_response(request: Request, error: Exception) -> Response:
    """The document for any exception; one that nobody foresaw becomes a 500 that tells nothing about it."""
    if isinstance(error, RequestValidationError):
        error = parameter_error(error.errors())
    if isinstance(error, HTTPException):
        phrase = HTTPStatus(error.status_code).phrase
        detail = _http_detail(request, error, phrase)
        return _respond(request, "about:blank", error.status_code, phrase, detail, (), error.headers)
    if not isinstance(error, RequestError):
        error = RequestError("The server failed on this request; its log has the cause under this request_id.")
    headers = dict(error.headers)
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    kind = TYPE_PREFIX + error.slug
    return _respond(request, kind, error.status, error.title, error.detail, error.errors, headers)


def parameter_error(items: Sequence[Mapping[str, Any]], source: str = "") -> ParameterError:
    """One error that names every parameter that pydantic refused."""
    errors = []
    for item in items:
        location = ".".join(str(part) for part in ((source, *item["loc"]) if source else item["loc"]))
        unknown = item["type"] == "extra_forbidden"
        errors.append((location, "unknown parameter" if unknown else str(item["msg"])))
    return ParameterError("; ".join(f"{location}: {detail}" for location, detail in errors), errors)


async def _handler(request: Request, error: Exception) -> Response:
    return problem_response(request, error)


def _http_detail(request: Request, error: HTTPException, phrase: str) -> str:
    if error.status_code == 404:
        return f"There is nothing at {request.url.path}; / lists what is here."
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "other methods")
        return f"{request.url.path} does not answer {request.method}; it answers {allowed}."
    return str(error.detail or phrase)


def _respond(
    request: Request,
    kind: str,
    status: int,
    title: str,
    detail: str,
    errors: Sequence[tuple[str, str]],
    headers: Mapping[str, str] | None,
) -> Response:
    problem = Problem(
        type=kind,
        title=title,
        status=status,
        detail=detail,
        instance=quote(request.scope["path"]),
        request_id=request.state.request_id,
        errors=[FieldError(location=location, detail=text) for location, text in errors],
    )
    return JSONResponse(problem.model_dump(), status, dict(headers or {}), MEDIA_TYPE)
