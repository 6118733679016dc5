"""What a request goes through, in which order, and what bounds it; in this process, on the fake bundle."""

import asyncio
import base64
import re
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import torch

from service.decoding import decode_image
from tests.service.local_requests import (
    BRIGHT,
    GREY,
    RAW,
    WHITE,
    Local,
    post,
    purify,
    refusal,
    service_in,
    within,
)


def test_stages_refuse_in_their_order_and_nothing_is_decoded_early(local: Local, energy: Any, gate: Any) -> None:
    junk = b"not an image: 415 if decoded"

    async def body(client: httpx.AsyncClient) -> None:
        await refusal(purify(client, content=junk), 415, "unsupported-format")
        await refusal(purify(client, "steps=-1", content=junk), 422, "invalid-parameters")
        problem = await refusal(purify(client, "steps=80", content=junk), 422, "invalid-parameters")
        assert "1 image(s) of 80 image-steps are 80, this server takes 70" in problem["detail"]
        await refusal(purify(client, "steps=60", content=junk), 429, "rate-limited")
        energy.hook = gate
        first = asyncio.ensure_future(purify(client, "steps=1"))
        await asyncio.to_thread(gate.reached.wait, 10)
        refused = await purify(client, "steps=1", content=junk)
        await refusal(_done(refused), 503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        gate.opened.set()
        assert (await first).status_code == 200

    within(local, body, max_cost=70, rate_limit=1e-6, rate_burst=4e7, queue_seconds=1e-9)


async def _done(response: httpx.Response) -> httpx.Response:
    return response


def test_what_can_not_be_decoded_gives_its_room_back(local: Local, energy: Any, gate: Any) -> None:
    async def body(client: httpx.AsyncClient) -> None:
        admission = service_in(client).admission
        energy.hook = gate
        files = [("images", (name, content)) for name, content in (("a", BRIGHT), ("b", b"junk"), ("c", GREY))]
        running = asyncio.ensure_future(client.post("/classify?steps=5&replicates=1", files=files))
        await asyncio.to_thread(gate.reached.wait, 10)
        assert admission.waiting == 2 * (5 + 2 * service_in(client).engine.classification_cost)
        gate.opened.set()
        assert [item["status"] for item in (await running).json()["results"]] == [200, 415, 200]
        assert admission.waiting == 0

    within(local, body)


def test_a_chain_that_diverges_fails_alone(local: Local, energy: Any) -> None:
    async def body(client: httpx.AsyncClient) -> None:
        energy.poison = lambda x: x.flatten(1).mean(1) > 0.9
        images = [base64.b64encode(png).decode() for png in (BRIGHT, WHITE, GREY)]
        answer = (await client.post("/classify", json={"images": images})).json()
        assert [item["status"] for item in answer["results"]] == [200, 500, 200]
        assert answer["results"][1]["problem"]["type"] == "urn:limpid:problem:chain-diverged"
        assert answer["failed"] == 1
        metrics = (await client.get("/metrics")).text
        assert 'ebm_images_total{outcome="answered"} 2.0' in metrics
        assert 'ebm_images_total{outcome="chain-diverged"} 1.0' in metrics

    within(local, body)


def test_a_request_whose_time_is_up_is_a_504_and_frees_the_engine(local: Local, energy: Any, gate: Any) -> None:
    async def body(client: httpx.AsyncClient) -> None:
        energy.hook = gate
        timeout = {"X-Request-Timeout": "0.05"}
        problem = await refusal(post(client, **timeout), 504, "deadline-exceeded")
        assert "time was up" in problem["detail"]
        gate.opened.set()
        assert (await post(client)).status_code == 200
        service = service_in(client)
        assert (service.engine.outstanding, service.admission.requests) == (0, 0)
        assert 'ebm_cancelled_total{reason="deadline"} 1.0' in (await client.get("/metrics")).text

    within(local, body)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon", "11"])
def test_timeouts_beyond_the_bounds_are_refused(local: Local, value: str) -> None:
    async def body(client: httpx.AsyncClient) -> None:
        problem = await refusal(post(client, **{"X-Request-Timeout": value}), 422, "invalid-parameters")
        assert problem["errors"][0]["location"].lower() == "header.x-request-timeout"

    within(local, body, request_timeout=10)


def test_bodies_in_flight_are_bounded_together_and_give_their_bytes_back(local: Local) -> None:
    async def body(client: httpx.AsyncClient) -> None:
        budget, arriving = service_in(client).byte_budget, asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield BRIGHT + bytes(600)  # what follows the end of a PNG is ignored
            await arriving.wait()
            yield bytes(100)

        first = asyncio.ensure_future(client.post("/classify", content=slowly(), headers=RAW))
        while not budget.held:
            await asyncio.sleep(0.001)
        assert budget.held == len(BRIGHT) + 600
        refused = await post(client, content=BRIGHT + bytes(400))
        await refusal(_done(refused), 503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        assert budget.held == len(BRIGHT) + 600
        assert (await post(client)).status_code == 200
        arriving.set()
        assert (await first).status_code == 200
        assert budget.held == 0
        assert (await post(client, content=BRIGHT + bytes(2000))).status_code == 200  # alone, it may be larger
        await refusal(post(client, content=b"junk"), 415, "unsupported-format")
        assert budget.held == 0

    within(local, body, max_inflight_bytes=1000)


def test_bodies_in_flight_are_refused_as_the_operator_prefers(local: Local) -> None:
    async def body(client: httpx.AsyncClient) -> None:
        with service_in(client).byte_budget.hold() as take:
            take(1000)
            await refusal(post(client), 429, "overloaded")

    within(local, body, max_inflight_bytes=1000, overload_status=429)


def test_two_images_are_decoded_at_a_time(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    pair, lock, active, peaks = threading.Barrier(2, timeout=10), threading.Lock(), set[int](), list[int]()

    def watched(*arguments: Any) -> torch.Tensor:
        with lock:
            active.add(threading.get_ident())
            peaks.append(len(active))
        pair.wait()
        image = decode_image(*arguments)
        time.sleep(0.01)  # time for a third one to show itself
        with lock:
            active.remove(threading.get_ident())
        return image

    async def body(client: httpx.AsyncClient) -> None:
        monkeypatch.setattr("service.intake.decode_image", watched)
        answers = await asyncio.gather(*(post(client, "steps=1") for _ in range(6)))
        assert [answer.status_code for answer in answers] == [200] * 6
        assert max(peaks) == 2

    within(local, body)


def test_a_request_that_finds_no_room_costs_nothing_of_the_rate(local: Local, energy: Any, gate: Any) -> None:
    async def body(client: httpx.AsyncClient) -> None:
        def purify(steps: int) -> Any:
            return client.post(f"/purify?steps={steps}", content=BRIGHT, headers=RAW)

        energy.hook = gate
        first = asyncio.ensure_future(purify(4))
        await asyncio.to_thread(gate.reached.wait, 10)
        for _ in range(3):
            await refusal(purify(6), 503, "overloaded")
        gate.opened.set()
        assert (await first).status_code == 200
        assert (await purify(6)).status_code == 200
        await refusal(purify(1), 429, "rate-limited")
        service = service_in(client)
        assert (service.admission.waiting, service.admission.requests) == (0, 0)

    within(local, body, rate_limit=1e-6, rate_burst=1e7, queue_seconds=1e-9)


async def counted(client: httpx.AsyncClient, kind: str) -> dict[str, float]:
    """`ebm_{kind}_total` by reason."""
    text = (await client.get("/metrics")).text
    found = re.findall(rf'^ebm_{kind}_total{{reason="([a-z-]+)"}} (\S+)$', text, re.MULTILINE)
    return {reason: float(count) for reason, count in found}


def test_requests_are_counted_by_whether_they_were_admitted(local: Local) -> None:
    async def body(client: httpx.AsyncClient) -> None:
        service = service_in(client)
        await refusal(post(client, **{"X-Request-Timeout": "1e-9"}), 504, "deadline-exceeded")
        service.admission.closed = True
        await refusal(post(client), 503, "unavailable")
        service.admission.closed = False
        await refusal(post(client, content=b"junk"), 415, "unsupported-format")
        assert await counted(client, "rejected") == {"deadline-exceeded": 1, "unavailable": 1}
        assert await counted(client, "cancelled") == {}
        await asyncio.to_thread(service.engine.stop)
        await refusal(post(client), 503, "unavailable")
        assert await counted(client, "cancelled") == {"unavailable": 1}
        assert await counted(client, "rejected") == {"deadline-exceeded": 1, "unavailable": 1}

    within(local, body)


def test_results_are_not_computed_on_the_event_loop(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    async def body(client: httpx.AsyncClient) -> None:
        metrics = service_in(client).metrics
        finished = metrics.finished
        monkeypatch.setattr(
            metrics, "finished", lambda *values: (threads.append(threading.get_ident()), finished(*values))
        )
        for accept in ("application/json", "image/png", "text/event-stream"):
            answer = await client.post("/purify", content=BRIGHT, headers=RAW | {"Accept": accept})
            assert answer.headers["content-type"].startswith(accept)
        assert len(threads) == 3
        assert threading.get_ident() not in threads

    within(local, body)
