"""The console as a page: its tabs, how it looks on which screen, what it may do and what it weighs."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from models.bundle import Bundle
from tests.web.conftest import Visit
from tests.web.npm import npm_file
from tests.web.page import PHONE, finish, pick, run

AXE = ("axe-core@4.14.1", "axe.min.js", "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c")
TABS = ("defence", "robustness", "operations", "api")


def shown(share: dict[str, Any]) -> str:
    accuracy, low, high = (f"{100 * share[name]:.1f}" for name in ("accuracy", "low", "high"))
    return f"{accuracy}\u00a0% [{low}, {high}]"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit: Visit, demo: httpx.Client, digit: Path, scheme: str) -> None:
    page = visit(demo, color_scheme=scheme, reduced_motion="reduce")
    pick(page, digit)
    page.fill("#steps", "8")
    page.click("#attack")
    finish(page)
    page.evaluate(npm_file(*AXE).read_text())
    for tab in TABS:
        page.click(f"#tab-{tab}")
        expect(page.locator(f"#panel-{tab} h1").first).to_be_visible()
        found = page.evaluate("async () => (await axe.run()).violations")
        worst = [(each["id"], each["impact"], each["nodes"][0]["html"]) for each in found]
        assert [each for each in worst if each[1] in ("serious", "critical")] == [], tab
        print(f"axe, {scheme}, {tab}: {worst or 'nothing'}")


@pytest.mark.parametrize("height", [800, 600])
def test_both_buttons_are_seen_without_scrolling(visit: Visit, photographs: httpx.Client, height: int) -> None:
    """On a low screen one of them covers the settings behind it, which can be scrolled to from under it."""
    page = visit(photographs, viewport={"width": 1280, "height": height})
    expect(page.locator(".thumb img")).to_have_count(20)
    for button in ("attack", "defend"):
        expect(page.locator(f"#{button}")).to_be_in_viewport(ratio=1)
    for field in ("preset", "steps", "replicates", "certify"):
        page.locator(f"#{field}").focus()
        page.locator(f"#{field}").click(trial=True)  # nothing lies over it
        below = page.evaluate(
            "document.activeElement.getBoundingClientRect().bottom <= defend.getBoundingClientRect().top"
        )
        assert below, field


def test_schemes_differ(visit: Visit, demo: httpx.Client) -> None:
    colours = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    light, dark = (sum(visit(demo, color_scheme=scheme).evaluate(colours)) for scheme in ("light", "dark"))
    assert light > 700
    assert dark < 100


def test_a_phone_scrolls_down_only(visit: Visit, demo: httpx.Client, digit: Path) -> None:
    page = visit(demo, **PHONE)
    pick(page, digit)
    page.tap("#attack")
    finish(page)
    expect(page.locator("#results")).to_be_in_viewport()
    for tab in TABS:
        page.tap(f"#tab-{tab}")
        expect(page.locator(f"#panel-{tab} h1").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, tab


def test_the_robustness_tab_says_what_was_measured(visit: Visit, demo: httpx.Client, digits_bundle: Bundle) -> None:
    measured = digits_bundle.manifest.measured["robustness"]
    page = visit(demo, path="#robustness")
    panel = page.locator("#panel-robustness")
    expect(panel.locator("h1")).to_contain_text(f"{100 * measured['worst_case']['accuracy']:.1f}\u00a0%")
    counted = [each for each in measured["attacks"] if each["on"] == "all" and not each["fixed_randomness"]]
    lines = panel.locator("table").first.locator("tbody tr")
    expect(lines).to_have_count(len(counted) + 4)
    expect(lines.nth(1)).to_contain_text(shown(measured["worst_case_rounded"]))
    expect(lines.last).to_have_text(f"Clean, bare classifier{shown(measured['bare']['clean'])}")
    expect(panel.locator(".checklist li")).to_have_count(len(measured["checklist"]))
    expect(panel.locator(".checklist .done")).to_have_count(sum(each["done"] for each in measured["checklist"]))
    points = sum(len(point["accuracies"]) for curve in measured["curves"] for point in curve["points"])
    expect(panel.locator("circle")).to_have_count(points)
    baseline = digits_bundle.manifest.measured["baseline"]
    transfer = panel.locator("table").last.locator("tbody tr")
    bare, presets = baseline["bare"], baseline["presets"].values()
    expected = [(bare["attacked"], bare["clean"]), *((each["transfer"], each["clean"]) for each in presets)]
    for line, (attacked, clean) in zip(transfer.all(), expected, strict=True):
        expect(line.locator(".number")).to_have_text([shown(attacked), shown(clean)])
    fired = [each["title"] for each in measured["indicators"] if each["fired"]]
    expect(panel.locator(".plain strong")).to_have_text(fired)


def test_operations_are_asked_while_somebody_looks(visit: Visit, demo: httpx.Client, digit: Path) -> None:
    page = visit(demo)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    expect(page.locator("#served")).to_contain_text("digits-midrun")
    assert not any(url.endswith("/metrics") for url in asked)
    page.click("#tab-operations")
    tiles = page.locator("#panel-operations dt")
    expect(tiles).to_have_text(["Queue", "Slots", "Throughput", "Answered", "Refused", "Heartbeat"])
    answered = page.locator("#panel-operations dd strong").nth(3)
    before = int((answered.text_content() or "").replace(",", ""))
    demo.post("/classify?steps=1", files={"image": digit.read_bytes()}).raise_for_status()
    expect(answered).to_have_text(f"{before + 1:,}")


def test_the_api_tab_does_the_same_without_the_page(
    visit: Visit, demo: httpx.Client, digit: Path, tmp_path: Path
) -> None:
    page = visit(demo, permissions=["clipboard-read", "clipboard-write"])
    pick(page, digit)
    page.fill("#steps", "5")
    page.click("#attack")
    finish(page)
    page.click("#tab-api")
    page.get_by_role("button", name="Copy the Python text").click()
    expect(page.get_by_text("Copied.")).to_be_visible()
    program = page.evaluate("() => navigator.clipboard.readText()")
    assert program == page.locator("#panel-api code").nth(1).text_content()
    (tmp_path / digit.name).write_bytes(digit.read_bytes())
    assert re.search(r"label='\d' index=\d probability=0\.\d+", run(program, tmp_path))
    command = f"{page.locator('#panel-api code').first.text_content()} --fail --output answer.json"
    subprocess.run(["bash", "-ec", f"set -o pipefail\n{command}"], cwd=tmp_path, check=True)
    answer = json.loads((tmp_path / "answer.json").read_text())
    with Image.open(tmp_path / "attacked.png") as attacked, Image.open(digit) as original:
        assert np.abs(np.array(attacked).astype(int) - np.array(original)).max() == 40
    assert answer["undefended"]["label"] != "6"


def test_a_file_of_any_name_is_sent_by_what_is_copied(
    visit: Visit, demo: httpx.Client, digit: Path, tmp_path: Path
) -> None:
    picture = tmp_path / 'a;b,c "d\'s" \\1.png'
    picture.write_bytes(digit.read_bytes())
    page = visit(demo)
    pick(page, picture)
    page.fill("#steps", "3")
    page.click("#defend")
    finish(page)
    page.click("#tab-api")
    command = page.locator("#panel-api code").first.text_content()
    subprocess.run(["bash", "-ec", f"{command} --silent --fail --output answer.json"], cwd=tmp_path, check=True)
    assert json.loads((tmp_path / "answer.json").read_text())["steps"] == 3


def test_operations_go_on_when_the_server_is_back(visit: Visit, demo: httpx.Client) -> None:
    page = visit(demo, expected=("ERR_FAILED",))
    page.route("**/metrics", lambda route: route.abort())
    page.click("#tab-operations")
    expect(page.get_by_role("alert")).to_contain_text("The server can not be reached")
    page.unroute("**/metrics")
    expect(page.locator("#panel-operations dt")).to_have_count(6)
    expect(page.get_by_role("alert")).to_be_hidden()


def test_operations_that_a_key_may_not_see_are_asked_for_once(visit: Visit, plain: httpx.Client) -> None:
    page = visit(plain, expected=("401", "403"))
    page.get_by_label("This server asks for a key").fill("m\N{LATIN SMALL LETTER U WITH DIAERESIS}de")
    page.keyboard.press("Enter")
    expect(page.locator("#served")).to_contain_text("digits-midrun")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.install()
    for times in (1, 2):
        page.click("#tab-operations")
        expect(page.get_by_role("alert")).to_contain_text("/metrics needs the scope metrics, the key bob has infer")
        page.clock.run_for(5000)
        page.evaluate("() => fetch('health/live').then((answer) => answer.status)")
        assert len([url for url in asked if url.endswith("/metrics")]) == times
        page.click("#tab-defence")
        expect(page.get_by_role("alert")).to_be_hidden()


def test_a_picture_of_the_gallery_is_fetched_by_what_is_copied(
    visit: Visit, photographs: httpx.Client, tmp_path: Path
) -> None:
    page = visit(photographs)
    expect(page.locator("#status")).to_have_text("00003-airplane.png is ready.")
    page.fill("#steps", "3")
    page.fill("#replicates", "1")
    page.click("#defend")
    finish(page)
    page.click("#tab-api")
    command, program = page.locator("#panel-api code").all_text_contents()
    assert re.search(r"label='\w+' index=\d", run(program, tmp_path))
    subprocess.run(["bash", "-ec", f"{command} --silent --fail --output answer.json"], cwd=tmp_path, check=True)
    assert len(json.loads((tmp_path / "answer.json").read_text())["predictions"]) == 10


def test_the_policy_is_kept_by_the_browser(visit: Visit, demo: httpx.Client) -> None:
    page = visit(demo, expected=("Content Security Policy", "TrustedScript"))
    refused = page.evaluate(
        """() => {
            const style = document.createElement("style");
            style.textContent = "body { display: none }";
            document.head.append(style);
            try {
                document.body.setAttribute("onclick", "1");
                return "taken";
            } catch (error) {
                return error.name;
            }
        }"""
    )
    assert refused == "TypeError"
    expect(page.locator("h1").first).to_be_visible()


def test_the_first_load_is_light_and_soon_usable(visit: Visit, photographs: httpx.Client) -> None:
    """With the gallery, of five browsers that know nothing; other work on the machine delays the slower ones."""
    loads = []
    for _ in range(5):
        page = visit(photographs)
        expect(page.locator(".thumb img")).to_have_count(20)
        page.wait_for_load_state("networkidle")
        loads.append(
            page.evaluate(
                """() => [
                    [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
                        .map((each) => each.transferSize),
                    performance.getEntriesByName("usable")[0].startTime,
                ]"""
            )
        )
    weight, usable = max(sum(sizes) for sizes, _ in loads), sorted(start for _, start in loads)
    times = ", ".join(f"{each:.0f}" for each in usable)
    print(f"{weight:,} bytes in {len(loads[0][0])} requests; usable after {times} ms")
    assert weight < 300_000
    assert usable[0] < 1000
