"""The demonstration's routes over HTTP, and where it is refused."""

import asyncio
import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from models.bundle import Bundle, read_manifest
from models.image_files import read_image
from models.pixels import from_uint8
from service.__main__ import main
from service.client import AsyncClient, AttackOptions, Client, ServiceProblem
from service.demo_schemas import Attacked
from service.errors import SettingsError
from service.ray_app import check_settings
from service.settings import Settings
from tests.server_process import DIGITS

MANIFEST = read_manifest(DIGITS)


def pixels(png_base64: str) -> npt.NDArray[np.int64]:
    return np.array(Image.open(io.BytesIO(base64.b64decode(png_base64, validate=True)))).astype(np.int64)


def send(client: httpx.Client, path: str, image: Path, **parameters: Any) -> httpx.Response:
    return client.post(path, params=parameters, files={"image": image.read_bytes()}, timeout=60)


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    blocks = [block.split("\n") for block in text.split("\n\n") if block.startswith("event")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


def test_an_attack_is_inside_its_budget_and_fools_the_bare_classifier(demo: httpx.Client, digit: Path) -> None:
    answer = send(demo, "/demo/attack", digit, budget=40, label="6").json()
    original, attacked = pixels(answer["original_png_base64"]), pixels(answer["attacked_png_base64"])
    assert np.array_equal(original, np.array(Image.open(digit)))
    change = attacked - original
    assert np.abs(change).max() == answer["linf_255"] <= 40
    shown = np.clip(np.rint(127.5 + 10 * change), 0, 255)
    assert np.array_equal(pixels(answer["difference_png_base64"]), shown)
    before, after = answer["original"], answer["attacked"]
    assert (before[0]["label"], answer["label"]) == ("6", "6")
    assert after[0]["label"] != "6"
    for predictions in (before, after):
        assert sorted(each["index"] for each in predictions) == list(range(10))
        assert sum(each["probability"] for each in predictions) == pytest.approx(1, abs=1e-4)
    bare = send(demo, "/classify", digit, steps=0, replicates=1).json()["undefended"]
    assert before[0]["probability"] == pytest.approx(bare["probability"], abs=1e-4)


def test_the_typed_client_attacks_too(demo: httpx.Client, digit: Path) -> None:
    url, options = str(demo.base_url), AttackOptions(budget=30, label="6")

    async def later() -> Attacked:
        async with AsyncClient(url) as client:
            return await client.attack(digit, options)

    # In a thread of its own: Playwright, which other files start, has an event loop in this one.
    with Client(url) as client, ThreadPoolExecutor(1) as pool:
        for attacked in (client.attack(digit, options), pool.submit(asyncio.run, later()).result()):
            assert (attacked.budget, attacked.label) == (30, "6")
            assert attacked.attacked[0].label != "6"
            answer = client.classify(attacked.png)
            assert answer.undefended is not None
            assert answer.undefended.label == attacked.attacked[0].label
        with pytest.raises(ServiceProblem, match="budget: 255 is more than"):
            client.attack(digit, AttackOptions(budget=255))


def test_an_attack_without_a_label_leads_away_from_the_bare_answer(demo: httpx.Client, digit: Path) -> None:
    answer = send(demo, "/demo/attack", digit, budget=1).json()
    assert answer["label"] == answer["original"][0]["label"]
    assert answer["linf_255"] == 1


@pytest.mark.parametrize(
    ("parameters", "detail"),
    [
        ({"budget": 41}, "budget: 41 is more than the 40 that this server demonstrates"),
        ({"budget": 0}, "greater than or equal to 1"),
        ({"label": "cat"}, "unknown class 'cat'; known: 0, 1, 2"),
        ({"steps": 5}, "unknown parameter"),
    ],
)
def test_an_attack_names_what_is_wrong(
    demo: httpx.Client, digit: Path, parameters: dict[str, Any], detail: str
) -> None:
    response = send(demo, "/demo/attack", digit, **parameters)
    assert response.status_code == 422
    assert detail in response.json()["detail"]


def test_an_attack_takes_one_image_alone(demo: httpx.Client, digit: Path) -> None:
    for files in ([("images", b"x")], [("images", b"x"), ("images", b"y")]):
        response = demo.post("/demo/attack", files=files)
        assert (response.status_code, response.json()["title"]) == (422, "Invalid parameters")
    response = demo.post("/demo/attack", files={"image": b"no image"})
    assert response.status_code == 415


def test_events_tell_every_step_of_the_chains(demo: httpx.Client, digit: Path, digits_bundle: Bundle) -> None:
    found = events(send(demo, "/demo/classify", digit, steps=60, replicates=3).text)
    names = [name for name, _ in found]
    assert (names[0], names[-2:]) == ("queued", ["votes", "result"])
    previews = [data for name, data in found if name == "preview"]
    frames = [frame for preview in previews for frame in preview["frames"]]
    assert [frame["step"] for frame in frames] == list(range(2, 61, 2))
    traces = [[energy for preview in previews for energy in preview["energies"][row]] for row in range(3)]
    assert [len(trace) for trace in traces] == [60, 60, 60]
    start = from_uint8(read_image(digit, MANIFEST.image))[None]
    with torch.no_grad():
        energy = float(digits_bundle.defence.energy(start))
    assert [trace[0] for trace in traces] == pytest.approx([energy] * 3, rel=1e-4)
    votes = dict(found)["votes"]["votes"]
    result = dict(found)["result"]
    first = result["predictions"][0]["label"]
    assert sum(vote["label"] == first for vote in votes) == round(result["agreement"] * 3)
    assert votes[0]["png_base64"] == frames[-1]["png_base64"]
    assert len({vote["png_base64"] for vote in votes}) == 3


def test_being_watched_does_not_change_a_chain(demo: httpx.Client, digit: Path) -> None:
    plain = send(demo, "/classify", digit, seed=3).json()
    watched = dict(events(send(demo, "/demo/classify", digit, seed=3).text))["result"]
    for key in ("predictions", "agreement", "suspicion", "mean_steps", "ood"):
        assert watched[key] == plain[key], key


def test_only_some_of_many_replicates_have_pictures(demo: httpx.Client, digit: Path) -> None:
    found = dict(events(send(demo, "/demo/classify", digit, steps=1, replicates=40).text))
    pictured = [vote["png_base64"] is not None for vote in found["votes"]["votes"]]
    assert pictured == [True] * 16 + [False] * 24
    assert len(found["preview"]["energies"]) == 16


def test_settled_chains_end_their_traces(demo: httpx.Client, digit: Path) -> None:
    found = events(send(demo, "/demo/classify", digit, preset="fast").text)
    ran = [sum(len(data["energies"][row]) for name, data in found if name == "preview") for row in range(2)]
    assert all(0 < steps <= MANIFEST.presets["fast"].num_steps for steps in ran)


@pytest.mark.parametrize("arguments", [["--insecure"], ["--insecure", "--docs"]])
def test_strangers_get_no_demonstration(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(["--host", "0.0.0.0", "--port", "0", "--demo", *arguments]) == 2
    assert "not demonstrating on 0.0.0.0" in capsys.readouterr().err


def test_a_demonstration_before_ray_wants_keys_too() -> None:
    with pytest.raises(SettingsError, match="--public-demo"):
        check_settings(Settings(insecure=True, demo=True))
    check_settings(Settings(insecure=True, demo=True, public_demo=True))


def test_labels_alone_and_a_demonstration_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--bundle", str(DIGITS), "--port", "0", "--demo", "--labels-only"]) == 2
    assert "--labels-only" in capsys.readouterr().err


def test_the_report_is_the_bundles_own(demo: httpx.Client, digits_bundle: Bundle) -> None:
    report = demo.get("/report").json()
    measured = digits_bundle.manifest.measured["robustness"]
    assert report["bundle"] == digits_bundle.digest
    assert report["robustness"] == measured
    assert {"worst_case", "attacks", "curves", "indicators", "checklist"} <= measured.keys()
