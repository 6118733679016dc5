"""What can go wrong in `service`, one branch per stage of a request; every class under RequestError owns its status.

ServiceError
├── SettingsError              a flag, a variable or an address that can not be used; the server does not start
└── RequestError               answered as application/problem+json (RFC 9457)
    ├── AccessError        403 a caller who may not do this
    │   ├── UnknownCallerError 401 no key, or one that the server does not know
    │   └── RateLimitedError   429 the key's rate is used up
    ├── AdmissionError     400 a body that can not be taken in
    │   ├── BodyTimeoutError   408 it did not arrive in time
    │   ├── BodyTooLargeError  413 more bytes than the server takes
    │   ├── MediaTypeError     415 neither a form, nor JSON, nor an image
    │   └── OverloadedError    503 the queue is full (429 if the operator prefers that)
    ├── DecodingError      422 an upload that is not one plain 8-bit image of the bundle's size
    │   ├── TooManyPixelsError 413 more pixels than the server decodes
    │   └── FormatError        415 not PNG, JPEG or WebP
    ├── ParameterError     422 a parameter that is unknown, malformed or out of bounds
    └── EngineError        500 the engine could not answer
        ├── ChainDivergedError 500 a Langevin chain left the finite numbers
        ├── DeadlineError      504 the request's time is over
        └── UnavailableError   503 the engine is starting, stopping or dead
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

TYPE_PREFIX = "urn:limpid:problem:"
"""A problem's type is this and its error's slug."""


class ServiceError(Exception):
    """Base of every error that `service` raises."""


class SettingsError(ServiceError):
    """A flag, a variable or an address can not be used."""


class RequestError(ServiceError):
    """A request that is answered with a problem document.

    Args:
        detail: one sentence for the caller: the value, and what was expected.
        errors: (location, detail) of each wrong parameter.
        retry_after: seconds after which trying again makes sense.
    """

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal server error"
    headers: ClassVar[Mapping[str, str]] = {}
    usual_retry_after: ClassVar[int | None] = None

    def __init__(self, detail: str, errors: Sequence[tuple[str, str]] = (), retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.detail, self.errors = detail, tuple(errors)
        self.retry_after = self.usual_retry_after if retry_after is None else retry_after


class AccessError(RequestError):
    """The caller may not do this."""

    status, slug, title = 403, "forbidden", "Forbidden"


class UnknownCallerError(AccessError):
    """The request has no key, or one that the server does not know."""

    status, slug, title = 401, "unauthorized", "Unauthorized"
    headers = {"WWW-Authenticate": "Bearer"}


class RateLimitedError(AccessError):
    """The key's rate is used up."""

    status, slug, title = 429, "rate-limited", "Rate limited"


class AdmissionError(RequestError):
    """The body can not be taken in."""

    status, slug, title = 400, "malformed-body", "Malformed request body"


class BodyTimeoutError(AdmissionError):
    """The body did not arrive in time."""

    status, slug, title = 408, "body-timeout", "Request body did not arrive in time"
    headers = {"Connection": "close"}


class BodyTooLargeError(AdmissionError):
    """The body has more bytes than the server takes."""

    status, slug, title = 413, "body-too-large", "Request body too large"
    headers = {"Connection": "close"}


class MediaTypeError(AdmissionError):
    """The body is neither a form, nor JSON, nor an image."""

    status, slug, title = 415, "unsupported-media-type", "Unsupported media type"


class OverloadedError(AdmissionError):
    """The queue is full."""

    status, slug, title = 503, "overloaded", "Server overloaded"


class OverloadedAs429Error(OverloadedError):
    """The queue is full, for operators whose clients and proxies retry on 429 alone."""

    status = 429


class DecodingError(RequestError):
    """The upload is not one plain 8-bit image of the bundle's size."""

    status, slug, title = 422, "unusable-image", "Unusable image"


class TooManyPixelsError(DecodingError):
    """The image has more pixels than the server decodes."""

    status, slug, title = 413, "too-many-pixels", "Image too large"


class FormatError(DecodingError):
    """The upload is not PNG, JPEG or WebP."""

    status, slug, title = 415, "unsupported-format", "Unsupported image format"


class ParameterError(RequestError):
    """A parameter is unknown, malformed or out of bounds."""

    status, slug, title = 422, "invalid-parameters", "Invalid parameters"


class EngineError(RequestError):
    """The engine could not answer."""

    slug, title = "engine-error", "Engine error"


class ChainDivergedError(EngineError):
    """A Langevin chain left the finite numbers."""

    slug, title = "chain-diverged", "Chain diverged"


class DeadlineError(EngineError):
    """The request's time is over."""

    status, slug, title = 504, "deadline-exceeded", "Deadline exceeded"


class UnavailableError(EngineError):
    """The engine is starting, stopping or dead."""

    status, slug, title = 503, "unavailable", "Service unavailable"
    usual_retry_after = 1
