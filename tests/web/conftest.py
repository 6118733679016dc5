"""A real headless Chromium against real servers; what its console complains of fails the test."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from models.image_files import write_png
from tests.conftest import ZOO
from tests.server_process import serve_bundle

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
CIFAR10 = ZOO / "cifar10-midrun"
PATIENCE_MS = 60_000
Visit = Callable[..., Page]

expect.set_options(timeout=PATIENCE_MS)


# For this folder only: while Playwright runs, asyncio.run does not work in this thread, and other tests use it.
@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is missing: `make browser` installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The digits bundle with --demo."""
    with serve_bundle(tmp_path_factory.mktemp("demo") / "log", "--demo", LIMPID_MAX_REPLICATES="64") as client:
        yield client


@pytest.fixture(scope="package")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The CIFAR-10 bundle with --demo."""
    log = tmp_path_factory.mktemp("photographs") / "log"
    with serve_bundle(log, "--demo", "--bundle", str(CIFAR10)) as client:
        yield client


@pytest.fixture(scope="package")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The digits bundle as it is usually served, though keys are wanted of everybody."""
    keys = "ann:hush:infer+metrics,bob:m\N{LATIN SMALL LETTER U WITH DIAERESIS}de:infer"
    with serve_bundle(tmp_path_factory.mktemp("plain") / "log", LIMPID_API_KEYS=keys) as client:
        yield client


@pytest.fixture(scope="package")
def digit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first test image: a 6."""
    from models.data import load_dataset

    path = tmp_path_factory.mktemp("digit") / "six.png"
    write_png(path, load_dataset("digits", "test").images[0])
    return path


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Visit]:
    """`visit(server, expected=[...], **context) -> page`, which has started; at the end nothing went wrong in it.

    `expected` are parts of the complaints that the test provokes.
    """
    contexts, complaints = [], list[str]()
    provoked: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(f"{message.text} ({message.location.get('url')})")

    def open_page(server: httpx.Client, expected: tuple[str, ...] = (), path: str = "", **options: Any) -> Page:
        provoked.extend(expected)
        context = chromium.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(str(server.base_url) + "/" + path)
        page.locator("html[data-ready], #key:not([hidden])").first.wait_for(state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [each for each in complaints if not any(part in each for part in provoked)] == []
    assert all(any(part in each for each in complaints) for part in provoked)
