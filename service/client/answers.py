"""From what came over the wire to the service's schemas, or to the error that it is."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from service.client.errors import AnswerError, ConnectionLost, InputError, ServiceProblem, TimedOut, Unreachable
from service.client.retrying import Contact
from service.schemas import Problem

ModelT = TypeVar("ModelT", bound=BaseModel)

MOST_TEXT = 200
"""Characters of an answer that an error shows."""
UNMADE = (httpx2.ConnectError, httpx2.ConnectTimeout)
BROKEN = (httpx2.NetworkError, httpx2.RemoteProtocolError, httpx2.ProxyError)
UNSENT = (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol)


@contextmanager
def transport_errors(contact: Contact) -> Iterator[None]:
    """Raise the transport's errors as this package's, and note whether there was contact."""
    try:
        yield
    except UNMADE as error:
        so_far = "" if contact.made else "; nothing has answered there yet: is the address right, does the service run?"
        raise Unreachable(f"no connection to {error.request.url}: {_reason(error)}{so_far}") from error
    except BROKEN as error:
        contact.made = True
        raise ConnectionLost(f"no connection to {error.request.url}: {error or type(error).__name__}") from error
    except httpx2.TimeoutException as error:
        contact.made = True
        raise TimedOut(f"the service did not answer in time ({type(error).__name__})") from error
    except UNSENT as error:
        raise InputError(f"the request can not be sent: {error}") from error
    except httpx2.RequestError as error:
        raise AnswerError(f"the answer can not be read: {error}") from error
    else:
        contact.made = True


def check_status(response: httpx2.Response) -> None:
    """Raise ServiceProblem unless the status is 200; the body must have been read."""
    if response.status_code != HTTPStatus.OK:
        raise ServiceProblem(_problem(response), _retry_after(response))


def parse(kind: type[ModelT], text: str | bytes) -> ModelT:
    """An answer of that kind; raises AnswerError when it is none."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        begin = text[:MOST_TEXT]
        raise AnswerError(f"expected a {kind.__name__} as the service's own version has it, got {begin!r}") from error


def _reason(error: BaseException) -> str:
    """What the system said: libraries wrap it several times over, the asynchronous ones in words of their own."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return "connection refused" if isinstance(error, ConnectionRefusedError) else str(error) or type(error).__name__


def _problem(response: httpx2.Response) -> Problem:
    """The document; of an answer that is none, such as a proxy's, what can be said in its form."""
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        phrase = response.reason_phrase or f"Status {response.status_code}"
        return Problem(
            type="about:blank",
            title=phrase,
            status=response.status_code,
            detail=response.text[:MOST_TEXT].strip(),
            instance=response.request.url.path,
            request_id=response.headers.get("x-request-id", ""),
        )


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds, from a number of them or from a date, which is compared with the server's own clock if it tells it."""
    value = response.headers.get("retry-after", "")
    if value.isdecimal():
        return float(value)
    until = _timestamp(value)
    now = _timestamp(response.headers.get("date", "")) or time.time()
    return None if until is None else max(0.0, until - now)


def _timestamp(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
