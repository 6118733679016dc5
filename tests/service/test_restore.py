"""POST /restore on a real server, with the digits bundle."""

import base64
import io
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from models.data import load_dataset
from models.image_files import encode_png

IMAGES = load_dataset("digits", "test").images[:3]
PNGS = [encode_png(image) for image in IMAGES]
LOWER = np.zeros((8, 8), dtype=np.uint8)
LOWER[4:] = 255
Files = list[tuple[str, tuple[str, bytes]]]


def png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


MASK = png(LOWER)


def form(*images: bytes, mask: bytes = MASK, field: str = "image") -> Files:
    return [("mask", ("mask.png", mask)), *((field, ("image.png", each)) for each in images)]


def pixels_of(content: bytes) -> Any:
    return np.array(Image.open(io.BytesIO(content)))


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    answer: dict[str, Any] = response.json()
    return answer


@pytest.mark.parametrize("path", ["/restore", "/v1/restore"])
def test_known_pixels_come_back_to_the_bit_and_the_others_do_not(server: httpx.Client, path: str) -> None:
    response = server.post(f"{path}?replicates=3", files=form(PNGS[0]))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    assert response.headers["content-disposition"] == 'attachment; filename="restored.png"'
    assert response.headers["x-limpid-restored-pixels"] == "32"
    assert float(response.headers["x-limpid-spread-255"]) > 0
    found, original = pixels_of(response.content), IMAGES[0, 0].numpy()
    assert np.array_equal(found[:4], original[:4])
    assert not np.array_equal(found[4:], original[4:])


def test_what_the_mask_hides_changes_nothing(server: httpx.Client) -> None:
    blotted = IMAGES[1].clone()
    blotted[:, 4:] = 77
    query = "/restore?seed=5&steps=20"
    first, second = (server.post(query, files=form(content)) for content in (PNGS[1], encode_png(blotted)))
    assert first.status_code == 200, first.text
    assert first.content == second.content
    assert server.post("/restore?seed=6&steps=20", files=form(PNGS[1])).content != first.content


def test_json_tells_where_the_answer_is_a_guess(server: httpx.Client) -> None:
    body = {"image": text(PNGS[0]), "mask": text(MASK), "replicates": 5, "steps": 30}
    answer = server.post("/restore", json=body, headers={"Accept": "application/json"}).json()
    spread = pixels_of(base64.b64decode(answer["uncertainty_png_base64"]))
    assert (answer["replicates"], answer["steps"], answer["mean_steps"]) == (5, 30, 30)
    assert (answer["width"], answer["height"], answer["restored_pixels"]) == (8, 8, 32)
    assert not spread[:4].any()
    assert spread[4:].all()
    root_mean_square = np.sqrt(np.square(spread[4:].astype(float)).mean())
    assert answer["spread_255"] == pytest.approx(root_mean_square, abs=0.51)  # the map is rounded to levels
    restored = pixels_of(base64.b64decode(answer["png_base64"]))
    assert np.array_equal(restored[:4], IMAGES[0, 0, :4].numpy())


def test_one_replicate_has_no_spread(server: httpx.Client) -> None:
    response = server.post("/restore?replicates=1", files=form(PNGS[0]))
    assert response.headers["x-limpid-spread-255"] == "0.0"


def test_one_mask_is_for_all_images_and_a_bad_image_fails_alone(server: httpx.Client) -> None:
    answer = server.post("/restore?steps=5", files=form(PNGS[0], b"junk", PNGS[2], field="images")).json()
    assert [result["status"] for result in answer["results"]] == [200, 415, 200]
    assert answer["failed"] == 1
    for index in (0, 2):
        restored = pixels_of(base64.b64decode(answer["results"][index]["png_base64"]))
        assert np.array_equal(restored[:4], IMAGES[index, 0, :4].numpy())


def test_a_coloured_mask_and_one_of_another_size_with_resize(server: httpx.Client) -> None:
    colours = np.repeat(np.repeat(LOWER, 2, 0), 2, 1)[:, :, None] * np.array([[[1, 1, 1]]], dtype=np.uint8)
    response = server.post("/restore?steps=5&resize=true", files=form(PNGS[0], mask=png(colours)))
    assert response.status_code == 200, response.text
    assert np.array_equal(pixels_of(response.content)[:4], IMAGES[0, 0, :4].numpy())


def test_a_stream_ends_with_the_json_answer(server: httpx.Client) -> None:
    response = server.post("/restore?steps=50", files=form(PNGS[0]), headers={"Accept": "text/event-stream"})
    assert response.text.startswith("event: queued")
    assert "uncertainty_png_base64" in response.text.rpartition("event: result")[2]


@pytest.mark.parametrize(
    ("mask", "status", "detail"),
    [
        (png(np.zeros((9, 8), np.uint8)), 422, "the image is 8x9 pixels, the bundle's size is 8x8"),
        (png(np.zeros((8, 8), np.uint8)), 422, "all 64 pixels are black, nothing is to restore"),
        (png(np.full((8, 8), 255, np.uint8)), 422, "all 64 pixels are white, nothing is known"),
        (b"GIF89a", 415, "not a PNG, JPEG or WebP"),
        (b"", 415, "not a PNG, JPEG or WebP"),
    ],
)
def test_a_mask_that_can_not_be_used(server: httpx.Client, mask: bytes, status: int, detail: str) -> None:
    for field in ("image", "images"):
        answer = problem(server.post("/restore", files=form(PNGS[0], mask=mask, field=field)), status)
        assert answer["detail"].startswith("mask: ")
        assert detail in answer["detail"]
        assert answer["errors"][0]["location"] == "mask"


def test_a_mask_must_come_once_and_only_where_it_is_wanted(server: httpx.Client) -> None:
    image = ("image", ("image.png", PNGS[0]))
    assert "mask: the form has no such file" in problem(server.post("/restore", files=[image]), 422)["detail"]
    twice = form(PNGS[0], mask=MASK) + form(mask=MASK)
    assert "mask: given twice" in problem(server.post("/restore", files=twice), 422)["detail"]
    for body in ({"image": text(PNGS[0])}, {"image": text(PNGS[0]), "mask": None}):
        assert "mask: the body has no such file" in problem(server.post("/restore", json=body), 422)["detail"]
    wrong = {"image": text(PNGS[0]), "mask": [1]}
    assert "mask: expected a base64 string, got list" in problem(server.post("/restore", json=wrong), 422)["detail"]
    unknown = problem(server.post("/purify", files=form(PNGS[0])), 422)
    assert "mask: unknown file; its field is image, or images for several" in unknown["detail"]
    unknown = problem(server.post("/classify", json={"image": text(PNGS[0]), "mask": text(MASK)}), 422)
    assert unknown["errors"][0]["location"] == "body.mask"


def test_a_bare_image_can_not_hold_a_mask(server: httpx.Client) -> None:
    answer = problem(server.post("/restore", content=PNGS[0], headers={"Content-Type": "image/png"}), 415)
    assert "a file field 'mask'" in answer["detail"]
    assert "got 'image/png'" in answer["detail"]


def test_its_cost_is_bounded_and_known_beforehand(server: httpx.Client) -> None:
    assert "501 is more" in problem(server.post("/restore?steps=501", files=form(PNGS[0])), 422)["detail"]
    events = server.post(
        "/restore?steps=7&replicates=3", files=form(PNGS[0]), headers={"Accept": "text/event-stream"}
    ).text
    assert '"cost":21' in events


def test_its_metrics_are_its_own(server: httpx.Client) -> None:
    def read(name: str) -> float:
        lines = [line for line in server.get("/metrics").text.splitlines() if line.startswith(name + " ")]
        return float(lines[0].rpartition(" ")[2])

    names = ("ebm_restored_share_count", "ebm_restored_share_sum", "ebm_perturbation_linf_count")
    before = [read(name) for name in names]
    assert server.post("/restore?steps=3", files=form(PNGS[0])).status_code == 200
    assert [read(name) - start for name, start in zip(names, before, strict=True)] == [1, 0.5, 0]


def test_it_is_documented(server: httpx.Client) -> None:
    assert "POST /restore" in server.get("/").json()["endpoints"]
    operation = server.get("/openapi.json").json()["paths"]["/restore"]["post"]
    content = operation["requestBody"]["content"]
    assert content.keys() == {"multipart/form-data", "application/json"}
    for kind in content.values():
        assert kind["schema"]["oneOf"] == [{"required": ["image", "mask"]}, {"required": ["images", "mask"]}]
    for example in content["application/json"]["examples"].values():
        assert server.post("/restore", json=example["value"]).status_code == 200
    assert operation["responses"]["200"]["content"].keys() == {"image/png", "application/json", "text/event-stream"}
