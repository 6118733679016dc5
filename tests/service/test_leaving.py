"""Clients that leave, behind the whole middleware stack: their chains stop, and nothing of them is left."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import torch

from models.image_files import encode_png
from service.state import Service

PNG = encode_png(torch.full((1, 4, 4), 200, dtype=torch.uint8))
RAW = {"Content-Type": "image/png"}
# Chains that would take hours.
ENDLESS = {"max_steps": 10**9, "max_cost": 10**10, "request_timeout": 10**9, "queue_seconds": 10**9}
Local = Callable[..., Any]


async def request(
    app: Any, leave: Callable[[list[Any]], Awaitable[object]], query: str, accept: str
) -> list[dict[str, Any]]:
    """Post an image and disconnect once `leave` returns; the messages that were sent until then."""
    sent: list[dict[str, Any]] = []
    messages = [{"type": "http.request", "body": PNG, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await leave(sent)
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/purify",
        "raw_path": b"/purify",
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(b"content-type", b"image/png"), (b"accept", accept.encode())],
        "scheme": "http",
        "server": ("local", 80),
        "client": ("local", 1),
        "http_version": "1.1",
    }
    await asyncio.wait_for(app(scope, receive, send), 10)
    return sent


def parts(client: httpx.AsyncClient) -> tuple[Any, Service]:
    app = client._transport.app  # type: ignore[attr-defined]
    return app, app.state.service


async def quiet(service: Service) -> None:
    """Wait until nothing is left of any request."""

    def left() -> tuple[int, ...]:
        engine, admission = service.engine, service.admission
        return engine.outstanding, engine.queue_depth, admission.requests, admission.waiting

    async with asyncio.timeout(10):
        while left() != (0, 0, 0, 0):
            await asyncio.sleep(0.002)


async def cancelled(client: httpx.AsyncClient, reason: str) -> float:
    text = (await client.get("/metrics")).text
    found = [line for line in text.splitlines() if line.startswith(f'ebm_cancelled_total{{reason="{reason}"}}')]
    return float(found[0].split()[-1]) if found else 0.0


@pytest.mark.parametrize("accept", ["image/png", "text/event-stream"])
def test_leaving_ends_chains_that_run(local: Local, accept: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "service.access")

    async def run() -> None:
        async with local(**ENDLESS) as client:
            app, service = parts(client)

            async def once_it_runs(sent: list[Any]) -> None:
                while not service.engine.slots_active:
                    await asyncio.sleep(0.002)

            sent = await request(app, once_it_runs, "steps=1000000000", accept)
            bodies = b"".join(message.get("body", b"") for message in sent)
            assert b"result" not in bodies
            assert b"error" not in bodies
            assert bool(sent) == (accept == "text/event-stream")
            await quiet(service)
            (line,) = (record.fields for record in caplog.records if record.name == "service.access")
            assert (line["path"], line["status"]) == ("/purify", 499)
            assert 'ebm_http_requests_total{code="499",route="/purify"} 1.0' in (await client.get("/metrics")).text
            assert await cancelled(client, "disconnect") == 1
            assert (await client.post("/purify", content=PNG, headers=RAW)).status_code == 200

    asyncio.run(run())


@pytest.mark.parametrize("accept", ["image/png", "text/event-stream"])
def test_leaving_ends_chains_that_wait(local: Local, energy: Any, gate: Any, accept: str) -> None:
    async def run() -> None:
        async with local(**ENDLESS) as client:
            app, service = parts(client)
            energy.hook = gate
            first = asyncio.ensure_future(client.post("/purify", content=PNG, headers=RAW))
            await asyncio.to_thread(gate.reached.wait, 10)

            async def once_it_waits(sent: list[Any]) -> None:
                while service.admission.requests < 2 or service.engine.outstanding < 10**9:
                    await asyncio.sleep(0.002)

            await request(app, once_it_waits, "steps=1000000000", accept)
            assert service.admission.requests == 1
            gate.opened.set()
            assert (await first).status_code == 200
            await quiet(service)

    asyncio.run(run())


def test_a_stream_ends_when_its_client_leaves_after_some_progress(local: Local) -> None:
    async def run() -> None:
        async with local(**ENDLESS) as client:
            app, service = parts(client)

            async def after_progress(sent: list[Any]) -> None:
                while not any(b"event: progress" in message.get("body", b"") for message in sent):
                    await asyncio.sleep(0.002)

            sent = await request(app, after_progress, "steps=1000000000", "text/event-stream")
            texts = [message["body"].decode() for message in sent[1:]]
            progress = [json.loads(text.partition("data: ")[2]) for text in texts if text.startswith("event: progress")]
            assert progress[0]["steps_total"] == 10**9
            assert 0 < progress[0]["steps_done"] < 10**9
            await quiet(service)

    asyncio.run(run())


def test_nothing_is_left_after_many_aborted_requests(local: Local) -> None:
    async def run() -> None:
        async with local(**ENDLESS) as client:
            app, service = parts(client)

            async def at_once(sent: list[Any]) -> None:
                await asyncio.sleep(0)

            for _ in range(10):
                await asyncio.gather(
                    *(
                        request(app, at_once, "steps=1000000", accept)
                        for accept in ("image/png", "text/event-stream") * 10
                    )
                )
            await quiet(service)
            assert await cancelled(client, "disconnect") == 200

    asyncio.run(run())


def test_a_stream_says_that_it_lives_and_ends_with_the_problem(
    local: Local, energy: Any, gate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.events.PROGRESS_SECONDS", 0.001)
    monkeypatch.setattr("service.events.HEARTBEAT_SECONDS", 0.0)

    async def run() -> None:
        async with local() as client:
            app, _ = parts(client)
            energy.hook, energy.gradient_scale = gate, float("nan")
            ended = asyncio.Event()

            async def once_it_ended(sent: list[Any]) -> None:
                while not any(message.get("body") == b": working\n\n" for message in sent):
                    await asyncio.sleep(0.002)
                gate.opened.set()
                await ended.wait()

            sent = await request(app, once_it_ended, "", "text/event-stream")
            last = sent[-2]["body"].decode()
            assert last.startswith("event: error\n")
            problem = json.loads(last.partition("data: ")[2])
            assert (problem["status"], problem["type"]) == (500, "urn:limpid:problem:chain-diverged")
            assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
            assert 'ebm_images_total{outcome="chain-diverged"} 1.0' in (await client.get("/metrics")).text

    asyncio.run(run())
