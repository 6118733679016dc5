"""Stopping a real server process: what a load balancer sees, and what happens to requests."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import httpx
import pytest

from tests.server_process import DIGITS, ROOT
from tests.service.test_server import PNG

LONG = {"steps": "2000", "replicates": "8"}


@contextmanager
def process(*flags: str) -> Iterator[tuple["subprocess.Popen[str]", httpx.Client]]:
    """A ready server that the test stops itself."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LIMPID_")}
    environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-m", "service", "--bundle", str(DIGITS), "--port", "0", *flags]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **streams) as server:
        try:
            assert server.stdout is not None
            match = re.search(r"http://[\d.:]+", server.stdout.readline())
            assert match
            with httpx.Client(base_url=match[0], timeout=60) as client:
                until(client, "/health/ready", 200)
                yield server, client
        finally:
            server.kill()


def until(client: httpx.Client, path: str, status: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if client.get(path).status_code == status:
                return
        time.sleep(0.01)
    raise AssertionError(f"{path} never answered {status}")


def classify(client: httpx.Client, **fields: str) -> httpx.Response:
    return client.post("/classify", files={"image": PNG}, data=fields)


def busy(client: httpx.Client) -> None:
    """Wait until a chain runs."""
    deadline = time.monotonic() + 30
    while "ebm_slots_active 0.0" in client.get("/metrics").text:
        assert time.monotonic() < deadline


def test_a_request_in_progress_survives_sigterm_and_new_ones_are_told_to_go_elsewhere() -> None:
    with process("--drain-timeout", "60") as (server, client), ThreadPoolExecutor() as pool:
        running = pool.submit(classify, client, **LONG)
        busy(client)
        server.send_signal(signal.SIGTERM)
        until(client, "/health/ready", 503)  # on an open socket: readiness flips before it closes
        assert client.get("/health/live").status_code == 200
        refused = classify(client)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["type"].endswith("unavailable")
        assert running.result(60).status_code == 200
        assert server.wait(30) == -signal.SIGTERM


def test_during_the_delay_new_requests_are_still_served() -> None:
    with process("--drain-delay", "30") as (server, client):
        server.send_signal(signal.SIGTERM)
        until(client, "/health/ready", 503)
        assert classify(client, steps="3").status_code == 200
        server.send_signal(signal.SIGTERM)  # the second signal means now
        assert server.wait(20) == -signal.SIGTERM


def test_a_second_signal_answers_what_runs_with_503() -> None:
    with process() as (server, client), ThreadPoolExecutor() as pool:
        running = pool.submit(classify, client, steps="2000", replicates="128")
        busy(client)
        server.send_signal(signal.SIGTERM)
        until(client, "/health/ready", 503)
        server.send_signal(signal.SIGTERM)
        answer = running.result(60)
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["retry-after"] == "1"
        assert server.wait(20) == -signal.SIGTERM


def test_what_does_not_end_in_time_is_answered_with_503() -> None:
    with process("--drain-timeout", "0.2") as (server, client), ThreadPoolExecutor() as pool:
        running = pool.submit(classify, client, steps="2000", replicates="128")
        busy(client)
        server.send_signal(signal.SIGTERM)
        answer = running.result(60)
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert server.wait(30) == -signal.SIGTERM


@pytest.mark.parametrize("device", ["cpu,cpu"])
def test_two_engines_serve_as_one(device: str) -> None:
    with process("--device", device) as (_, client), ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: classify(client, steps="20"), range(8)))
        assert [answer.status_code for answer in answers] == [200] * 8
        info = client.get("/info").json()
        assert info["device"] == "cpu,cpu"
        assert info["queue"]["slots"] >= 32
