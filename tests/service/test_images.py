"""One image and several, in forms and in JSON, over HTTP on the digits bundle."""

import base64
import io
import json
import tracemalloc
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from models.data import load_dataset
from models.image_files import encode_png
from service.errors import AdmissionError
from service.uploads import parse_json

TEST_SET = load_dataset("digits", "test")
PNGS = [encode_png(image) for image in TEST_SET.images[:4]]
TEXTS = [base64.b64encode(png).decode() for png in PNGS]
SHARED = {"preset", "steps", "bundle", "timings", "request_id"}
CLASSIFIED = {"predictions", "agreement", "undefended", "suspicion", "ood", "certificate", "mean_steps"}


def files(*contents: bytes, name: str = "images") -> list[tuple[str, tuple[str, bytes]]]:
    return [(name, (f"{index}.png", content)) for index, content in enumerate(contents)]


def post(server: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = server.post(path, json=body, headers={"Accept": "application/json"})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def refusal(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status
    return str(response.json()["detail"])


@pytest.mark.parametrize("as_json", [True, False])
def test_each_of_several_images_has_its_own_result(server: httpx.Client, as_json: bool) -> None:
    path = "/classify?steps=0&replicates=1&top_k=1"
    response = server.post(path, json={"images": TEXTS}) if as_json else server.post(path, files=files(*PNGS))
    answer = response.json()
    assert response.status_code == 200, answer
    assert answer.keys() == SHARED | {"replicates", "results", "failed"}
    assert answer["failed"] == 0
    assert [result["index"] for result in answer["results"]] == [0, 1, 2, 3]
    for result, label in zip(answer["results"], TEST_SET.labels[:4].tolist(), strict=True):
        assert result.keys() == CLASSIFIED | {"index", "status"}
        assert result["status"] == 200
        assert result["undefended"]["index"] == label
        assert result["predictions"] == [result["undefended"]]


def test_the_answers_shape_follows_the_field_not_the_count(server: httpx.Client) -> None:
    query = "steps=1&replicates=1"
    for body in ({"files": files(PNGS[0])}, {"json": {"images": TEXTS[:1]}}):
        assert len(server.post(f"/classify?{query}", **body).json()["results"]) == 1
    for body in ({"files": files(PNGS[0], name="image")}, {"json": {"image": TEXTS[0]}}):
        assert server.post(f"/classify?{query}", **body).json().keys() == SHARED | CLASSIFIED | {"replicates"}


def test_an_image_that_can_not_be_used_fails_alone(server: httpx.Client) -> None:
    contents = (PNGS[0], PNGS[1][:80], b"GIF89a", b"", PNGS[2])
    response = server.post("/classify?steps=1", files=files(*contents))
    answer = response.json()
    assert response.status_code == 200
    assert [result["status"] for result in answer["results"]] == [200, 422, 415, 415, 200]
    assert answer["failed"] == 3
    failed = answer["results"][1]
    assert failed.keys() == {"index", "status", "problem"}
    assert failed["problem"]["type"] == "urn:limpid:problem:unusable-image"
    assert failed["problem"]["request_id"] == answer["request_id"] == response.headers["x-request-id"]


def test_several_images_of_which_none_can_be_used(server: httpx.Client) -> None:
    answer = server.post("/classify", files=files(b"x", b"y")).json()
    assert (answer["failed"], len(answer["results"])) == (2, 2)
    assert answer["timings"]["purify_ms"] == 0


def test_purify_answers_several_images_in_json(server: httpx.Client) -> None:
    response = server.post("/purify?steps=0", files=files(*PNGS), headers={"Accept": "image/png"})
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert answer.keys() == SHARED | {"results", "failed"}
    for result, image in zip(answer["results"], TEST_SET.images[:4], strict=True):
        png = Image.open(io.BytesIO(base64.b64decode(result["png_base64"])))
        assert np.array_equal(np.array(png), image[0].numpy())
        assert result["distance"] == {"l2": 0.0, "linf_255": 0.0}


def test_json_options_are_those_of_the_query(server: httpx.Client) -> None:
    answer = post(server, "/classify", {"image": TEXTS[0], "preset": "fast", "steps": 7, "replicates": 3, "top_k": 2})
    assert (answer["preset"], answer["steps"], answer["replicates"]) == ("fast", 7, 3)
    assert answer["mean_steps"] == 7
    assert len(answer["predictions"]) == 2
    answer = post(server, "/purify?steps=3", {"image": TEXTS[0], "resize": True})
    assert answer["steps"] == answer["mean_steps"] == 3
    assert answer["width"] == 8


@pytest.mark.parametrize(
    ("path", "body", "location", "detail"),
    [
        ("/classify", {}, "body.image", "no such file"),
        ("/classify", {"images": []}, "body.image", "no such file"),
        ("/classify", {"image": None}, "body.image", "no such file"),
        ("/classify", {"image": TEXTS[0], "images": TEXTS}, "body.image", "together with images"),
        ("/classify", {"images": TEXTS[:1] * 33}, "body.images", "more than this server's 32 images"),
        ("/classify", {"images": TEXTS[0]}, "body.images", "expected a list"),
        ("/classify", {"image": 7}, "body.image", "expected a base64 string, got int"),
        ("/classify", {"image": "iVBORw0!"}, "body.image", "plain base64"),
        ("/classify", {"image": "data:image/png;base64," + TEXTS[0]}, "body.image", "without a data: prefix"),
        ("/classify", {"image": TEXTS[0] + "\n"}, "body.image", "plain base64"),
        ("/classify", {"images": [TEXTS[0], "é"]}, "body.images.1", "plain base64"),
        ("/classify", {"image": ""}, "image", "empty"),
        ("/classify", {"image": TEXTS[0], "temperature": 0}, "body.temperature", "unknown parameter"),
        ("/classify", {"image": TEXTS[0], "steps": "10"}, "body.steps", "valid integer"),
        ("/classify", {"image": TEXTS[0], "steps": True}, "body.steps", "valid integer"),
        ("/classify", {"image": TEXTS[0], "steps": 501}, "steps", "501 is more than the 500 allowed here"),
        ("/classify", {"image": TEXTS[0], "steps": 10**4000}, "body.steps", "less than or equal to"),
        ("/classify?steps=1", {"image": TEXTS[0], "steps": 1}, "steps", "given twice"),
        ("/purify", {"image": TEXTS[0], "top_k": 1}, "body.top_k", "unknown parameter"),
    ],
)
def test_wrong_json_names_what_is_wrong(
    server: httpx.Client, path: str, body: dict[str, Any], location: str, detail: str
) -> None:
    response = server.post(path, json=body)
    assert detail in refusal(response, 422)
    (error,) = response.json()["errors"]
    assert error["location"] == location


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"steps": NaN}', "not JSON: NaN"),
        (b'{"steps": -Infinity}', "not JSON: -Infinity"),
        ('{"steps": 1}'.encode("utf-16"), "not JSON"),
        ('\ufeff{"steps": 1}'.encode(), "not JSON"),
        (b'{"\\udc00": 1}', "not JSON"),
        (b'{"steps": 1' + b"0" * 5000 + b"}", "not JSON"),
        (b'{"image": "\\ud800"}', "not JSON"),
        (b"[]", "expected a JSON object, got list"),
        (b"[" * 200, "not JSON"),
        (b"[" * 100_000, "100000 brackets, quotes, colons and commas"),
        (b'{"a":' * 100_000, "400000 brackets"),
        (json.dumps({"images": TEXTS[:1] * 90}).encode(), "16 fields and 32 images has no more than 256"),
        (json.dumps({f"key{index}": 0 for index in range(17)}).encode(), "at most 16"),
    ],
)
def test_what_is_not_a_json_object(server: httpx.Client, body: bytes, detail: str) -> None:
    response = server.post("/classify", content=body, headers={"Content-Type": "application/json; charset=utf-8"})
    assert detail in refusal(response, 400)
    assert len(response.content) < 1000


@pytest.mark.parametrize(
    ("body", "location"),
    [
        (b'{"image": "AAAA", "image": "BBBB"}', "body.image"),
        (b'{"image": "AAAA", "steps": 1, "st\\u0065ps": 2}', "body.steps"),
        (b'{"image": {"a": 1, "a": 1}}', "body.a"),
    ],
)
def test_a_key_given_twice_is_refused(server: httpx.Client, body: bytes, location: str) -> None:
    response = server.post("/classify", content=body, headers={"Content-Type": "application/json"})
    assert "given twice" in refusal(response, 422)
    assert [error["location"] for error in response.json()["errors"]] == [location]


def test_deep_nesting_is_refused_whatever_the_limits() -> None:
    with pytest.raises(AdmissionError, match="not JSON"):
        parse_json(b"[" * 100_000, max_images=10**6)


@pytest.mark.parametrize("value", [b"[]", b"{}", b'""', b"0"])
def test_a_body_of_many_values_is_refused_before_it_is_parsed(value: bytes) -> None:
    body = b'{"image":[' + (value + b",") * (3 * 2**20 // (len(value) + 1)) + value + b"]}"
    tracemalloc.start()
    try:
        with pytest.raises(AdmissionError, match="brackets"):
            parse_json(body, max_images=32)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(body)


def test_the_largest_request_in_json_is_not_refused() -> None:
    fields = {"images": ["AAAA"] * 32} | {f"option{number}": "text" for number in range(15)}
    assert len(parse_json(json.dumps(fields).encode(), max_images=32).contents) == 32


def test_names_that_callers_choose_are_not_echoed_at_length(server: httpx.Client) -> None:
    response = server.post("/classify", json={"image": TEXTS[0], "x" * 100_000: 0})
    assert "unknown parameter" in refusal(response, 422)
    assert len(response.content) < 1000


def test_the_body_limit_holds_for_json(server: httpx.Client) -> None:
    assert "2097152" in refusal(server.post("/classify", json={"image": "A" * (2 * 2**20)}), 413)


@pytest.mark.parametrize(
    ("names", "detail"),
    [
        (["image", "image"], "image: given twice; images takes several"),
        (["image", "images"], "image: given together with images"),
        (["images"] * 33, "images: more than this server's 32 images"),
        (["images"] * 40, "images: more than this server's 32 images"),
    ],
)
def test_forms_with_the_wrong_files(server: httpx.Client, names: list[str], detail: str) -> None:
    response = server.post("/classify", files=[(name, ("a.png", PNGS[0])) for name in names])
    assert detail in refusal(response, 422)
