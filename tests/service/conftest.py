"""A real server process, fake bundles, and an application in this process."""

import asyncio
import io
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from models.bundle import Bundle
from models.manifest import ClassifierEntry, ImageShape, Manifest, NetworkEntry
from models.pixels import Normalisation
from models.purifier import Preset, PurifiedClassifier
from service.app import create_app
from service.engine import Engine
from service.settings import Settings

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "models" / "zoo" / "digits-midrun"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of `python -m service` on the digits bundle; the server must stop cleanly and log no traceback."""
    log = tmp_path_factory.mktemp("server") / "log"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LIMPID_")}
    environment |= {"OMP_NUM_THREADS": "1", "LIMPID_MAX_STEPS": "500", "LIMPID_MAX_REPLICATES": "16"}
    command = [sys.executable, "-m", "service", "--bundle", str(DIGITS), "--port", "0", "--max-body-bytes", "2MiB"]
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            banner = process.stdout.readline()
            match = re.search(r"http://[\d.:]+", banner)
            assert match, f"no URL in {banner!r}; log:\n{log.read_text()}"
            with httpx.Client(base_url=match[0], timeout=30) as client:
                _wait_until_ready(client, process)
                yield client
        finally:
            process.terminate()
            process.wait(timeout=30)
    assert "Traceback" not in log.read_text(), log.read_text()
    assert "Application shutdown complete" in log.read_text()


def _wait_until_ready(client: httpx.Client, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.TransportError):
            if client.get("/health/ready").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"the server did not become ready (exit code {process.poll()})")


class FakeEnergy(nn.Module):
    """|x|^2 / 2, after calling `hook` with the chains: the tests' way to block, count and fail."""

    def __init__(self) -> None:
        super().__init__()
        self.hook: Callable[[Tensor], None] = lambda x: None
        self.gradient_scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        self.hook(x)
        return self.gradient_scale * 0.5 * x.flatten(1).square().sum(1)


class MeanClassifier(nn.Module):
    """Two logits, dark and light: minus and plus the mean pixel."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        return torch.stack([-mean, mean], 1)


class Gate:
    """An energy hook that lets the engine's thread wait until the test opens it."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, x: Tensor) -> None:
        self.reached.set()
        assert self.opened.wait(10), "the test never opened the gate"


@pytest.fixture
def energy() -> FakeEnergy:
    return FakeEnergy()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture
def bundle(energy: FakeEnergy) -> Bundle:
    """4x4 grey images, `energy` and a classifier of mean brightness; nothing of it is on disk."""
    manifest = Manifest(
        name="fake",
        description="A quadratic energy.",
        image=ImageShape(height=4, width=4, channels=1),
        class_names=("dark", "light"),
        energy=NetworkEntry(architecture="fake"),
        classifier=ClassifierEntry(network=None, normalisation=Normalisation(mean=(0.5,), std=(0.5,))),
        presets={"short": Preset(num_steps=3, step_size=0.01, temperature=1.0, replicates=2)},
        default_preset="short",
        files={},
    )
    defence = PurifiedClassifier(energy, MeanClassifier(), manifest.classifier.normalisation, manifest.presets["short"])
    return Bundle(Path("fake"), manifest, defence)


@pytest.fixture
def engine(bundle: Bundle) -> Iterator[Engine]:
    """A started, warm engine on the fake bundle with room for two waiting requests."""
    engine = Engine(bundle, torch.device("cpu"), queue_limit=2)
    engine.start()
    wait_for(lambda: engine.ready)
    yield engine
    engine.stop()


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Poll until `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.002)


Local = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def local(bundle: Bundle) -> Local:
    """`async with local(**settings) as client`: the application on the fake bundle, in this process."""

    @asynccontextmanager
    async def run(wait: bool = True, **values: object) -> AsyncIterator[httpx.AsyncClient]:
        settings = Settings.model_validate(values)
        engine = Engine(bundle, torch.device("cpu"), settings.queue_limit, settings.stall_timeout)
        app = create_app(settings, engine)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://local") as client,
        ):
            while wait and not engine.ready:
                await asyncio.sleep(0.002)
            yield client

    return run


@pytest.fixture(scope="session")
def save() -> Callable[..., bytes]:
    """`save(image, "PNG", **options)`: the encoded file's bytes."""

    def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return encode
