"""A real server process, fake bundles, and an application in this process."""

import asyncio
import io
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
)
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
from service.fleet import Fleet
from service.settings import Settings
from tests.server_process import Serve, serve_bundle


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, serve: Serve) -> Iterator[httpx.Client]:
    """A client of a server with small limits."""
    log = tmp_path_factory.mktemp("server") / "log"
    with serve(log, "--max-body-bytes", "2MiB", LIMPID_MAX_STEPS="500", LIMPID_MAX_REPLICATES="16") as client:
        yield client


@pytest.fixture(scope="session")
def serve() -> Serve:
    """`with serve(log, *flags, **variables) as client`."""
    return serve_bundle


class FakeEnergy(nn.Module):
    """|x|^2 / 2, after calling `hook` with the chains: for tests to block, count and fail. NaN where `poison`ed."""

    def __init__(self) -> None:
        super().__init__()
        self.hook: Callable[[Tensor], None] = lambda x: None
        self.gradient_scale = 1.0
        self.poison: Callable[[Tensor], Tensor] = lambda x: torch.zeros(len(x), dtype=torch.bool)

    def forward(self, x: Tensor) -> Tensor:
        self.hook(x)
        energy = self.gradient_scale * 0.5 * x.flatten(1).square().sum(1)
        return energy * torch.ones(len(x)).masked_fill(self.poison(x.detach()), torch.nan)


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
    """A started, warm engine of four slots on the fake bundle."""
    engine = Engine(bundle, torch.device("cpu"), slots=4, threads=1)
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
        engine = Engine(bundle, torch.device("cpu"), slots=4, threads=1, stall_timeout=settings.stall_timeout)
        app = create_app(settings, Fleet([engine]))
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
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
