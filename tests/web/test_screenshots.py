"""The console on real pictures, as people see it: `pytest tests/web/test_screenshots.py --screenshots docs/images`."""

from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from models.bundle import read_manifest
from tests.web.conftest import CIFAR10, Visit
from tests.web.page import PHONE, finish

DESKTOP = {"viewport": {"width": 1280, "height": 1080}}


def test_a_cat_of_the_gallery_is_attacked(visit: Visit, photographs: httpx.Client, pytestconfig: pytest.Config) -> None:
    folder: Path = pytestconfig.getoption("--screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    page = visit(photographs, **DESKTOP)
    expect(page.locator(".thumb img")).to_have_count(20)
    page.get_by_role("radio", name="cat, number 8 of CIFAR-10 test").check(force=True)
    expect(page.locator("#status")).to_have_text("00008-cat.png is ready.")
    page.click("#attack")
    finish(page)
    answers = page.locator(".answer")
    expect(answers.nth(0)).to_have_class("answer right")
    expect(answers.nth(1)).to_have_class("answer wrong")
    worst = read_manifest(CIFAR10).measured["robustness"]["worst_case"]["accuracy"]
    expect(page.locator(".notice")).to_contain_text(f"{100 * worst:.1f}\u00a0%")
    expect(page.locator(".votes li")).to_have_count(4)
    expect(page.locator(".film")).to_contain_text("Step 100")
    page.mouse.move(640, 5)
    page.screenshot(path=folder / "console.png")
    page.emulate_media(color_scheme="dark")
    page.screenshot(path=folder / "console-dark.png")
    page.set_viewport_size(PHONE["viewport"])
    page.screenshot(path=folder / "console-phone.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(DESKTOP["viewport"])
    for tab in ("robustness", "operations", "api"):
        page.click(f"#tab-{tab}")
        expect(page.locator(f"#panel-{tab} h1").first).to_be_visible()
        page.screenshot(path=folder / f"console-{tab}.png", full_page=True)
