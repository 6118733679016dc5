"""Probes, /info, /metrics, the Open Inference Protocol and streams, of a real server on the digits bundle."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.bundle import read_manifest
from models.data import load_dataset
from models.image_files import encode_png
from service import __version__

MANIFEST = read_manifest(Path(__file__).parents[2] / "models" / "zoo" / "digits-midrun")
PNG = encode_png(load_dataset("digits", "test").images[0])
RAW = {"Content-Type": "image/png"}
EVENTS = RAW | {"Accept": "text/event-stream"}


def sample(server: httpx.Client, name: str) -> float:
    """A metric's value, 0 when it has none yet."""
    match = re.search(rf"^{re.escape(name)} (\S+)$", server.get("/metrics").text, re.MULTILINE)
    return float(match[1]) if match else 0.0


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    blocks = [block.split("\n") for block in text.split("\n\n") if block and not block.startswith(":")]
    assert all(len(lines) == 2 for lines in blocks)
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


def test_info_adds_to_the_index(server: httpx.Client) -> None:
    index, info = server.get("/").json(), server.get("/info").json()
    assert {key: info[key] for key in index} == index
    added = {key: info[key] for key in info.keys() - index.keys()}
    queue = added.pop("queue")
    assert added == {
        "version": __version__,
        "device": "cpu",
        "calibrated": sorted(MANIFEST.calibration),
        "auth_required": False,
        "demo": None,
    }
    assert queue["slots"] >= 1
    assert queue["cost"] >= 1
    assert 0 <= queue["fraction"] <= 1
    assert queue["fraction"] == round(queue["fraction"], 2)


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/health/startup", {"status": "started"}),
        ("/v2", {"name": "limpid", "version": __version__, "extensions": []}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        (f"/v2/models/{MANIFEST.name}/ready", {"name": MANIFEST.name, "ready": True}),
    ],
)
def test_probes_and_metadata(server: httpx.Client, path: str, answer: dict[str, Any]) -> None:
    response = server.get(path)
    assert (response.status_code, response.json()) == (200, answer)


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/health/startup", "/v2/health/live"])
def test_probes_answer_head(server: httpx.Client, path: str) -> None:
    response = server.head(path)
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-length"] == server.get(path).headers["content-length"]


def test_the_models_metadata_names_its_tensors(server: httpx.Client) -> None:
    model = server.get(f"/v2/models/{MANIFEST.name}").json()
    assert model["versions"] == [MANIFEST.digest]
    assert model["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 1, 8, 8]}]
    assert [tensor["shape"] for tensor in model["outputs"]] == [[-1, 1, 8, 8], [-1, 10]]
    for path in ("/v2/models/other", "/v2/models/other/ready"):
        response = server.get(path)
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/problem+json"
        assert f"unknown model 'other'; this server has '{MANIFEST.name}'" in response.json()["detail"]


def test_metrics_count_what_was_asked(server: httpx.Client) -> None:
    names = [
        'ebm_http_requests_total{code="200",route="/classify"}',
        'ebm_http_requests_total{code="404",route="other"}',
        'ebm_images_total{outcome="answered"}',
        'ebm_images_total{outcome="unsupported-format"}',
        'ebm_image_decode_errors_total{reason="unsupported-format"}',
        'ebm_rejected_total{reason="invalid-parameters"}',
        "ebm_queue_wait_seconds_count",
        "ebm_perturbation_linf_count",
        "ebm_disagreement_count",
        "ebm_steps_total",
    ]
    before = [sample(server, name) for name in names]
    assert server.post("/classify?steps=10&replicates=4", content=PNG, headers=RAW).status_code == 200
    assert server.post("/classify", content=b"x", headers=RAW).status_code == 415
    assert server.post("/classify?steps=501", content=PNG, headers=RAW).status_code == 422
    assert server.get("/nowhere/at/all").status_code == 404
    after = [sample(server, name) for name in names]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 1, 1, 1, 1, 1, 4, 1, 40]


def test_metrics_show_the_engine(server: httpx.Client) -> None:
    response = server.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert f'ebm_model_info{{digest="{MANIFEST.digest}",name="{MANIFEST.name}"}} 1.0' in response.text
    assert sample(server, "ebm_slots_total") == server.get("/info").json()["queue"]["slots"]
    assert sample(server, "ebm_queue_depth") == sample(server, "ebm_queue_cost") == 0
    assert 0 <= sample(server, "ebm_engine_heartbeat_age_seconds") < 5
    assert sample(server, "ebm_step_duration_seconds_count") == sample(server, "ebm_batch_occupancy_count")


@pytest.mark.parametrize("path", ["/classify", "/purify"])
def test_a_stream_tells_progress_and_then_the_json_answer(server: httpx.Client, path: str) -> None:
    response = server.post(f"{path}?steps=500", content=PNG, headers=EVENTS)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    (first, queued), *middle, (last, result) = events(response.text)
    assert (first, last) == ("queued", "result")
    replicates = result.get("replicates", 1)
    classifications = queued["cost"] - 500 * replicates  # of each chain's end and of the bare image
    assert classifications >= 0
    assert classifications % (replicates + 1) == 0 if path == "/classify" else classifications == 0
    assert queued["estimated_seconds"] >= 0
    done = [progress["steps_done"] for name, progress in middle if name == "progress"]
    assert len(done) == len(middle)
    assert done == sorted(set(done))
    assert all(progress["steps_total"] == queued["cost"] for _, progress in middle)
    json_answer = server.post(f"{path}?steps=500", content=PNG, headers=RAW | {"Accept": "application/json"}).json()
    assert result.keys() == json_answer.keys()
    assert result["request_id"] == response.headers["x-request-id"]


def test_a_stream_of_several_images(server: httpx.Client) -> None:
    files = [("images", ("a.png", PNG)), ("images", ("b.png", b"junk"))]
    response = server.post("/purify?steps=5", files=files, headers={"Accept": "text/event-stream"})
    result = events(response.text)[-1][1]
    assert [item["status"] for item in result["results"]] == [200, 415]


@pytest.mark.parametrize(
    ("query", "content", "status"), [("", b"junk", 415), ("", PNG[:80], 422), ("steps=501", PNG, 422), ("", b"", 422)]
)
def test_what_is_refused_at_once_is_no_stream(server: httpx.Client, query: str, content: bytes, status: int) -> None:
    response = server.post(f"/classify?{query}", content=content, headers=EVENTS)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
