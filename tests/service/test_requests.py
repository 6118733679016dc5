"""What a request goes through, in which order, and what its options do; in this process, on the fake bundle."""

import asyncio
import base64
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any

import httpx
import pytest
import torch

from models.bundle import Bundle
from models.calibration import Calibration, Origin, Reference, Typicality
from models.certificate import largest_radius
from models.image_files import encode_png
from service.decoding import decode_image
from service.state import Service

WHITE, BRIGHT, GREY = (encode_png(torch.full((1, 4, 4), level, dtype=torch.uint8)) for level in (255, 200, 128))
RAW = {"Content-Type": "image/png"}
CLEAN_ENERGY = 2.0
KEYS = "user:first:infer,boss:second:admin"
Local = Callable[..., Any]
Body = Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]


@pytest.fixture
def bundle(bundle: Bundle) -> Bundle:
    """With a calibration by which every image is more unusual than three clean ones."""
    preset = bundle.manifest.presets["short"]
    origin = Origin(preset=preset, weights=bundle.manifest.weights_digest, data="fake", first=0, images=30, seed=0)
    nothing = (0.0, 1e-9)
    reference = Reference(disagreement=nothing, movement=nothing, energy_drop=nothing)
    typicality = Typicality(mean=CLEAN_ENERGY, distances=(0.5, 1.0, 1.5))
    calibration = {
        "short": Calibration(origin=origin, reference=reference, scores=(0.1, 0.2, 0.3), typicality=typicality)
    }
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"calibration": calibration}))


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


@pytest.mark.parametrize("forced", [True, False])
def test_labels_only_tells_no_number(local: Local, forced: bool) -> None:
    async def body(client: httpx.AsyncClient) -> None:
        answer = (await post(client, "top_k=2" if forced else "top_k=2&labels_only=true")).json()
        assert answer["predictions"] == [{"label": "light", "index": 1, "probability": None}]
        for name in ("undefended", "agreement", "suspicion", "ood", "certificate"):
            assert answer[name] is None
        problem = await refusal(post(client, "labels_only=true&certify=true"), 422, "invalid-parameters")
        assert "radius" in problem["detail"]

    within(local, body, labels_only=forced)


def test_suspicion_is_only_told_where_it_is_calibrated(local: Local) -> None:
    async def body(client: httpx.AsyncClient) -> None:
        assert (await client.get("/info")).json()["calibrated"] == ["short"]
        for query in ("", "preset=short&steps=3", "replicates=2"):
            assert (await post(client, query)).json()["suspicion"] == 0.75
        for query in ("steps=2", "replicates=3"):
            assert (await post(client, query)).json()["suspicion"] is None

    within(local, body)


def image_of(energy: float) -> bytes:
    """A 4x4 image of one colour with about that energy, 16 / 2 times its level in [-1, 1] squared."""
    return encode_png(torch.full((1, 4, 4), round(127.5 * (1 + (energy / 8) ** 0.5)), dtype=torch.uint8))


@pytest.mark.parametrize(("own_energy", "share"), [(2.0, 0.0), (2.7, 0.25), (1.3, 0.25), (3.9, 0.75), (0.0, 0.75)])
def test_ood_is_the_share_of_clean_energies_that_lie_nearer_to_their_mean(
    local: Local, own_energy: float, share: float
) -> None:
    """Above the mean or below it; whatever the chain, for it is read before the first step."""

    async def body(client: httpx.AsyncClient) -> None:
        for query in ("", "steps=1&replicates=3", "certify=true&certify_draws=8"):
            assert (await post(client, query, image_of(own_energy))).json()["ood"] == share
        accept = {"Accept": "application/json"}
        purified = await client.post("/purify", content=image_of(own_energy), headers=RAW | accept)
        assert purified.json()["ood"] == share
        assert (await post(client, "steps=0", image_of(own_energy))).json()["ood"] is None

    within(local, body)


def test_a_server_of_labels_tells_no_ood_when_it_purifies(local: Local) -> None:
    async def body(client: httpx.AsyncClient) -> None:
        accept = {"Accept": "application/json"}
        assert (await client.post("/purify", content=GREY, headers=RAW | accept)).json()["ood"] is None

    within(local, body, labels_only=True)


def test_a_bundle_calibrated_without_energies_answers_ood_with_null(local: Local, bundle: Bundle) -> None:
    calibration = bundle.manifest.calibration
    calibration["short"] = calibration["short"].model_copy(update={"typicality": None})

    async def body(client: httpx.AsyncClient) -> None:
        answer = (await post(client)).json()
        assert (answer["suspicion"], answer["ood"]) == (0.75, None)

    within(local, body)


def test_a_certificate_counts_the_draws_that_did_not_select(local: Local) -> None:
    async def body(client: httpx.AsyncClient) -> None:
        assert (await post(client)).json()["certificate"] is None
        assert (await post(client, "certify=true")).json()["certificate"] == {
            "label": "light",
            "index": 1,
            "radius_l2": round(largest_radius(96, 0.08), 6),
            "sigma": 0.08,
            "confidence": 0.999,
            "draws": 128,
            "abstained": False,
        }
        few = (await post(client, "certify=true&certify_draws=40&sigma=0.2")).json()["certificate"]
        assert (few["draws"], few["radius_l2"]) == (40, round(largest_radius(30, 0.2), 6))
        unsure = (await post(client, "certify=true&seed=1", GREY)).json()["certificate"]
        assert (unsure["label"], unsure["index"], unsure["radius_l2"], unsure["abstained"]) == (None, None, 0.0, True)

    within(local, body)


@pytest.mark.parametrize(
    ("query", "location"),
    [
        ("certify=true&certify_draws=17", "certify_draws"),
        ("certify_draws=8", "certify_draws"),
        ("sigma=0.1", "sigma"),
        ("certify=true&sigma=0", "query.sigma"),
        ("certify=true&sigma=1.01", "query.sigma"),
        ("certify=true&certify_draws=3", "query.certify_draws"),
        ("seed=-1", "query.seed"),
        ("seed=9223372036854775808", "query.seed"),
    ],
)
def test_options_beyond_the_bounds(local: Local, query: str, location: str) -> None:
    async def body(client: httpx.AsyncClient) -> None:
        problem = await refusal(post(client, query), 422, "invalid-parameters")
        assert [error["location"] for error in problem["errors"]] == [location]

    within(local, body, max_replicates=2)


def test_a_seed_repeats_an_answer_and_needs_the_scope_admin(local: Local) -> None:
    async def body(client: httpx.AsyncClient) -> None:
        problem = await refusal(post(client, "seed=1", **{"X-API-Key": "first"}), 403, "forbidden")
        assert "deterministic" in problem["detail"]
        boss = {"X-API-Key": "second"}
        answers = [
            (await post(client, query, **boss)).json()["predictions"] for query in ("seed=1", "seed=1", "seed=2", "")
        ]
        assert answers[0] == answers[1]
        assert len({str(answer) for answer in answers}) == 3
        assert (await client.get("/info", headers=boss)).json()["auth_required"] is True

    within(local, body, api_keys=KEYS)


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


@pytest.mark.parametrize(("settings", "status"), [({}, 200), ({"insecure": True}, 403)])
def test_without_keys_a_seed_is_for_this_machine_alone(local: Local, settings: dict[str, Any], status: int) -> None:
    async def body(client: httpx.AsyncClient) -> None:
        assert (await post(client, "seed=1")).status_code == status
        assert (await post(client)).status_code == 200
        assert (await client.get("/metrics")).status_code == 200

    within(local, body, **settings)
