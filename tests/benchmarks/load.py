"""A load generator: requests at random times that do not wait for answers, each on a connection of its own.

It speaks HTTP on bare asyncio streams: a client library's connection pool takes so much time at a thousand open
requests that it would be what is measured.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx
import numpy as np
import torch
from torch import Tensor

from models.manifest import ImageShape
from tests.benchmarks.processes import Server


@dataclass(frozen=True)
class Arrival:
    """A request of `steps` Langevin steps, sent `at` seconds after the start."""

    at: float
    steps: int


@dataclass(frozen=True)
class Reply:
    """A whole HTTP answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Outcome:
    """What became of an arrival.

    Args:
        answer: the status, or why there is none.
        seconds: from the time at which it was due until it ended.
    """

    arrival: Arrival
    answer: str
    retry_after: bool
    seconds: float

    @property
    def answered(self) -> bool:
        return self.answer.startswith("2")

    @property
    def turned_away(self) -> bool:
        """Whether it was told in good order to come again."""
        return self.answer == "503" and self.retry_after

    @property
    def ended(self) -> float:
        """Seconds after the start."""
        return self.arrival.at + self.seconds


def poisson_arrivals(rate: float, seconds: float, shares: Mapping[int, float], seed: int) -> list[Arrival]:
    """Independent arrivals, `rate` a second, each of a length drawn by `shares` (steps: probability)."""
    generator = np.random.default_rng(seed)
    count = generator.poisson(rate * seconds)
    times = np.sort(generator.uniform(0.0, seconds, count))
    lengths = generator.choice(list(shares), count, p=list(shares.values()))
    return [Arrival(float(at), int(steps)) for at, steps in zip(times, lengths, strict=True)]


def example_image(shape: ImageShape) -> Tensor:
    """The image that every request sends: random pixels, uint8 [C, H, W]."""
    generator = torch.Generator().manual_seed(0)
    size = (shape.channels, shape.height, shape.width)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)


def purify_request(server: Server, png: bytes, steps: int) -> bytes:
    """The bytes of POST /purify with a form of the image and its number of steps."""
    files = {"image": ("image.png", png, "image/png")}
    return _serialise(httpx.Request("POST", f"{server.url}/purify", files=files, data={"steps": str(steps)}))


def classify_request(server: Server, png: bytes) -> bytes:
    """The bytes of POST /classify with a form of the image."""
    return _serialise(httpx.Request("POST", f"{server.url}/classify", files={"image": ("image.png", png, "image/png")}))


def get_request(server: Server, path: str) -> bytes:
    """The bytes of a GET."""
    return _serialise(httpx.Request("GET", server.url + path))


def _serialise(request: httpx.Request) -> bytes:
    request.headers["Connection"] = "close"
    body = request.read()
    lines = [
        f"{request.method} {request.url.raw_path.decode()} HTTP/1.1",
        *(f"{k}: {v}" for k, v in request.headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def exchange(server: Server, request: bytes) -> Reply:
    """Send the request and read the whole answer; raises OSError when the connection breaks before its end.

    Cancelling it closes the socket.
    """
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(request)
        content = await reader.read()
    finally:
        writer.close()
    head, _, body = content.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if not status or len(body) != int(headers.get("content-length", -1)):
        raise ConnectionError("closed before the end of the answer")
    return Reply(int(status.split()[1]), headers, body)


async def offer(
    server: Server, arrivals: Sequence[Arrival], requests: Mapping[int, bytes], timeout: float
) -> list[Outcome]:
    """Send each arrival's request when it is due, and wait at most `timeout` seconds for each answer.

    Args:
        requests: the bytes to send, by steps.
    """
    start = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as group:
        tasks = []
        for arrival in arrivals:
            await asyncio.sleep(start + arrival.at - asyncio.get_running_loop().time())
            tasks.append(group.create_task(_follow(server, arrival, requests[arrival.steps], start, timeout)))
    return [task.result() for task in tasks]


async def _follow(server: Server, arrival: Arrival, request: bytes, start: float, timeout: float) -> Outcome:
    loop = asyncio.get_running_loop()
    due, retry_after = start + arrival.at, False
    try:
        async with asyncio.timeout_at(due + timeout):
            reply = await exchange(server, request)
        answer, retry_after = str(reply.status), "retry-after" in reply.headers
    except TimeoutError:
        answer = "client's timeout"
    except OSError as error:
        answer = type(error).__name__
    return Outcome(arrival, answer, retry_after, loop.time() - due)


class Watch:
    """While it is entered: how long GET `path` takes, and the server's memory, each at a fixed interval.

    Args:
        latencies: seconds of each probe that was answered 200.
        failed: probes that were not.
        resident: (seconds since the start, MiB).
    """

    def __init__(self, server: Server, path: str, probe_interval: float = 0.1, memory_interval: float = 1.0) -> None:
        self._server, self._request = server, get_request(server, path)
        self._probe_interval, self._memory_interval = probe_interval, memory_interval
        self.latencies: list[float] = []
        self.failed = 0
        self.resident: list[tuple[float, float]] = []

    async def __aenter__(self) -> "Watch":
        self._tasks = [asyncio.create_task(self._probe()), asyncio.create_task(self._weigh())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for ended in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    async def _probe(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            start = loop.time()
            try:
                reply = await exchange(self._server, self._request)
            except OSError:
                self.failed += 1
            else:
                self.failed += reply.status != 200
                self.latencies += [loop.time() - start] if reply.status == 200 else []
            await asyncio.sleep(start + self._probe_interval - loop.time())

    async def _weigh(self) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        while True:
            self.resident.append((round(loop.time() - start, 1), round(self._server.resident(), 1)))
            await asyncio.sleep(self._memory_interval)
