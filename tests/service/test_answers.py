"""What the options of a request do to its answer; in this process, on the fake bundle."""

from dataclasses import replace
from typing import Any

import httpx
import pytest
import torch

from models.bundle import Bundle
from models.calibration import Calibration, Origin, Reference, Typicality
from models.certificate import largest_radius
from models.image_files import encode_png
from tests.service.local_requests import GREY, KEYS, RAW, Local, post, refusal, within

CLEAN_ENERGY = 2.0


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


@pytest.mark.parametrize(("settings", "status"), [({}, 200), ({"insecure": True}, 403)])
def test_without_keys_a_seed_is_for_this_machine_alone(local: Local, settings: dict[str, Any], status: int) -> None:
    async def body(client: httpx.AsyncClient) -> None:
        assert (await post(client, "seed=1")).status_code == status
        assert (await post(client)).status_code == 200
        assert (await client.get("/metrics")).status_code == 200

    within(local, body, **settings)
