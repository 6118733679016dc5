"""A typed client of the service: `Client`, and `AsyncClient` for event loops. It loads neither PyTorch nor FastAPI."""

try:
    import httpx2  # noqa: F401
except ImportError as error:
    raise ImportError("service.client needs httpx2: pip install -e '.[client]'") from error

from service.client.asynchronous import AsyncClient, AsyncJob
from service.client.errors import (
    AnswerError,
    ClientError,
    ConnectionLost,
    InputError,
    ServiceProblem,
    TimedOut,
    Unreachable,
)
from service.client.retrying import Retries
from service.client.synchronous import Client, Job
from service.demo_schemas import AttackOptions
from service.event_schemas import Progress, Queued
from service.options import ClassifyOptions, PurifyOptions, RestoreOptions

__all__ = [
    "AnswerError",
    "AsyncClient",
    "AsyncJob",
    "AttackOptions",
    "ClassifyOptions",
    "Client",
    "ClientError",
    "ConnectionLost",
    "InputError",
    "Job",
    "Progress",
    "PurifyOptions",
    "Queued",
    "RestoreOptions",
    "Retries",
    "ServiceProblem",
    "TimedOut",
    "Unreachable",
]
