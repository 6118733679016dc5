"""Requests to the service in this process, on the fake bundle of 4 x 4 pixels."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import torch

from models.image_files import encode_png
from service.state import Service

WHITE, BRIGHT, GREY = (encode_png(torch.full((1, 4, 4), level, dtype=torch.uint8)) for level in (255, 200, 128))
RAW = {"Content-Type": "image/png"}
KEYS = "user:first:infer,boss:second:admin"
Local = Callable[..., Any]
Body = Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]


def within(local: Local, body: Body, **settings: Any) -> None:
    async def run() -> None:
        async with local(**settings) as client:
            await body(client)

    asyncio.run(run())


def service_in(client: httpx.AsyncClient) -> Service:
    service: Service = client._transport.app.state.service  # type: ignore[attr-defined]
    return service


def post(client: httpx.AsyncClient, query: str = "", content: bytes = BRIGHT, **headers: str) -> Any:
    return client.post(f"/classify?{query}", content=content, headers=RAW | headers)


def purify(client: httpx.AsyncClient, query: str = "", content: bytes = BRIGHT) -> Any:
    """One chain, and no classification: its cost is its steps."""
    return client.post(f"/purify?{query}", content=content, headers=RAW)


async def refusal(response: Any, status: int, slug: str) -> dict[str, Any]:
    answer = await response
    assert answer.status_code == status, answer.text
    problem: dict[str, Any] = answer.json()
    assert problem["type"] == f"urn:limpid:problem:{slug}"
    return problem
