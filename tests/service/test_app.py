"""The application in this process, where the engine can be made to block, fail and die."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import torch
from torch import Tensor

from models.bundle import Bundle
from models.image_files import encode_png
from service import answers
from service.app import create_app
from service.engine import Engine
from service.fleet import Fleet
from service.settings import Settings
from service.state import Service

PNG = encode_png(torch.full((1, 4, 4), 200, dtype=torch.uint8))
RAW = {"Content-Type": "image/png"}
Local = Callable[..., Any]


def service_in(client: httpx.AsyncClient) -> Service:
    service: Service = client._transport.app.state.service  # type: ignore[attr-defined]
    return service


def assert_problem(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert problem["type"] == f"urn:limpid:problem:{slug}"
    assert problem["request_id"] == response.headers["x-request-id"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"
    return problem


def test_the_n_plus_first_request_is_refused_before_it_is_decoded(local: Local, energy: Any, gate: Any) -> None:
    async def run() -> None:
        async with local(max_requests=2) as client:
            energy.hook = gate
            admitted = [asyncio.ensure_future(client.post("/classify", content=PNG, headers=RAW)) for _ in range(2)]
            await asyncio.to_thread(gate.reached.wait, 10)
            while service_in(client).admission.requests < 2:
                await asyncio.sleep(0)
            refused = await client.post("/classify", content=b"not an image: 415 if decoded", headers=RAW)
            assert_problem(refused, 503, "overloaded")
            assert int(refused.headers["retry-after"]) >= 1
            gate.opened.set()
            assert [response.status_code for response in await asyncio.gather(*admitted)] == [200, 200]
            assert_problem(await client.post("/classify", content=b"x", headers=RAW), 415, "unsupported-format")
            assert (await client.post("/classify", content=PNG, headers=RAW)).status_code == 200

    asyncio.run(run())


def test_a_diverged_chain_is_a_problem_and_the_next_request_is_fine(local: Local, energy: Any) -> None:
    async def run() -> None:
        async with local() as client:
            energy.gradient_scale = float("nan")
            assert_problem(await client.post("/purify", content=PNG, headers=RAW), 500, "chain-diverged")
            energy.gradient_scale = 1.0
            assert (await client.post("/purify", content=PNG, headers=RAW)).status_code == 200

    asyncio.run(run())


def test_an_engine_failure_tells_nothing_about_itself(local: Local, energy: Any) -> None:
    async def run() -> None:
        def fail(x: Tensor) -> None:
            raise RuntimeError("/secret/path")

        async with local() as client:
            energy.hook = fail
            response = await client.post("/classify", content=PNG, headers=RAW)
            assert_problem(response, 500, "engine-error")
            assert "secret" not in response.text

    asyncio.run(run())


def test_an_unforeseen_exception_is_a_problem_too(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(pixels: Tensor) -> bytes:
        raise ZeroDivisionError("/secret/path")

    async def run() -> None:
        monkeypatch.setattr(answers, "encode_png", fail)
        async with local() as client:
            response = await client.post("/purify", content=PNG, headers=RAW | {"X-Request-ID": "abc"})
            assert assert_problem(response, 500, "internal-error")["request_id"] == "abc"
            assert "secret" not in response.text

    asyncio.run(run())


def test_a_dead_engine_shows_in_both_probes_and_in_answers(local: Local, energy: Any) -> None:
    async def run() -> None:
        def die(x: Tensor) -> None:
            raise SystemExit

        async with local() as client:
            assert (await client.get("/health/live")).json() == {"status": "live"}
            assert (await client.get("/health/ready")).json() == {"status": "ready"}
            energy.hook = die
            assert_problem(await client.post("/classify", content=PNG, headers=RAW), 503, "unavailable")
            for path in ("/health/live", "/health/ready"):
                problem = assert_problem(await client.get(path), 503, "unavailable")
                assert "engine" not in problem["detail"]
                assert (await client.head(path)).status_code == 503
            assert_problem(await client.post("/classify", content=PNG, headers=RAW), 503, "unavailable")

    asyncio.run(run())


def test_ready_follows_the_warm_up_and_live_does_not_wait_for_it(local: Local, energy: Any, gate: Any) -> None:
    async def run() -> None:
        energy.hook = gate
        async with local(wait=False) as client:
            assert (await client.get("/health/live")).status_code == 200
            not_ready = await client.get("/health/ready")
            assert_problem(not_ready, 503, "unavailable")
            assert not_ready.headers["retry-after"] == "1"
            gate.opened.set()
            while (await client.get("/health/ready")).status_code != 200:
                await asyncio.sleep(0.002)

    asyncio.run(run())


def test_a_body_that_does_not_arrive_times_out(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield PNG[:10]
        await asyncio.sleep(60)

    async def run() -> None:
        monkeypatch.setattr("service.middleware.LINGER_SECONDS", 0.05)
        async with local(body_timeout=0.05) as client:
            response = await client.post("/classify", content=stalled(), headers=RAW)
            assert_problem(response, 408, "body-timeout")
            assert response.headers["connection"] == "close"

    asyncio.run(run())


def test_importing_and_building_have_no_effect(bundle: Bundle) -> None:
    engine = Engine(bundle, torch.device("cpu"))
    app = create_app(Settings(), Fleet([engine]))
    assert not engine.live
    schema = app.openapi()
    assert json.dumps(schema) == json.dumps(app.openapi())
