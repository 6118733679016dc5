"""Raw sockets against a real server: those that keep a connection for nothing lose it."""

import json
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.__main__ import main
from tests.service.conftest import wait_for
from tests.service.test_server import PNG, RAW

SECONDS = 0.3


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, serve: Callable[..., Any]) -> Iterator[httpx.Client]:
    """A client of a server that waits only shortly for requests."""
    with serve(tmp_path_factory.mktemp("strict") / "log", f"--header-timeout={SECONDS}") as client:
        yield client


def connect(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=10)


def closed_after(connection: socket.socket, trickle: bytes) -> float:
    """Seconds until the server closes, while the client sends `trickle` byte by byte."""
    started = time.monotonic()
    connection.settimeout(0.02)
    for byte in trickle:
        try:
            connection.send(bytes([byte]))
            if connection.recv(1) == b"":
                break
        except TimeoutError:
            continue
        except OSError:
            break
    else:
        raise AssertionError("the server did not close")
    return time.monotonic() - started


@pytest.mark.parametrize("head", [b"", b"GET /health/li", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: "])
def test_an_incomplete_head_closes_the_connection_however_it_trickles(strict: httpx.Client, head: bytes) -> None:
    with connect(strict) as connection:
        connection.sendall(head)
        assert closed_after(connection, b"x" * 500) >= SECONDS - 0.05
    with connect(strict) as connection:
        connection.sendall(head)
        assert connection.recv(1) == b""


def test_the_second_request_of_a_connection_has_the_same_time(strict: httpx.Client) -> None:
    with connect(strict) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(65536)
        connection.sendall(b"GET /health")
        assert connection.recv(65536) == b""


def test_a_body_that_nobody_waits_for_any_more_keeps_no_connection(strict: httpx.Client) -> None:
    with connect(strict) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nx")
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 404")
        closed_after(connection, b"x" * 500)


@pytest.mark.parametrize(
    "sent", [b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nA : b\r\n\r\n", b"\x16\x03\x01" * 100]
)
def test_what_is_not_http_is_a_problem_too(strict: httpx.Client, sent: bytes) -> None:
    with connect(strict) as connection, connection.makefile("rb") as answer:
        connection.sendall(sent + b"\r\n\r\n")
        head, _, body = answer.read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert b"content-type: application/problem+json" in head
    problem = json.loads(body)
    assert problem.keys() == {"type", "title", "status", "detail", "instance", "request_id", "errors"}
    assert (problem["status"], len(problem["request_id"])) == (400, 32)


def test_a_request_that_is_being_answered_has_all_the_time_it_needs(strict: httpx.Client) -> None:
    answer = strict.post("/classify?steps=2000&replicates=8", content=PNG, headers=RAW)
    assert answer.json()["timings"]["total_ms"] > 1000 * SECONDS


def test_connections_are_bounded_and_places_are_given_back(serve: Callable[..., Any], tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serve(log, "--max-connections", "6") as client, ExitStack() as stack:
        first, *_, last = [stack.enter_context(connect(client)) for _ in range(7)]
        assert last.recv(1) == b""
        first.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert first.recv(65536).startswith(b"HTTP/1.1 200")
        stack.close()
        assert client.get("/health/live").status_code == 200
    assert "6 connections are open: one more is closed" in log.read_text()


def test_more_connections_than_the_system_allows_are_refused_at_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--max-connections", str(10**9)]) == 2
    message = capsys.readouterr().err
    assert "--max-connections 1000000000 needs 1000000128 open files, the system allows" in message
    assert str(resource.getrlimit(resource.RLIMIT_NOFILE)[1]) in message


def test_nothing_is_left_of_clients_that_leave_half_way(serve: Callable[..., Any], tmp_path: Path) -> None:
    cost, cancelled = "ebm_queue_cost 0.0", 'ebm_cancelled_total{reason="disconnect"} 200.0'
    head = b"POST /classify?steps=2000&replicates=64 HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    head += b"Accept: %s\r\nContent-Length: " + str(len(PNG)).encode() + b"\r\n\r\n"
    with serve(tmp_path / "log", "--queue-seconds", "1e6", "--request-timeout", "1e6") as client, ExitStack() as stack:
        for number in range(200):
            connection = stack.enter_context(connect(client))
            accept = (b"application/json", b"text/event-stream")[number % 2]
            connection.sendall(head % accept + PNG[: len(PNG) // (1 + number % 3)])  # a third of them sends it all
        wait_for(lambda: "ebm_slots_active 0.0" not in client.get("/metrics").text)
        stack.close()
        wait_for(lambda: all(line in client.get("/metrics").text for line in (cost, cancelled)))
        metrics = client.get("/metrics").text
        assert "ebm_queue_depth 0.0" in metrics
        assert "ebm_slots_active 0.0" in metrics
        assert client.post("/classify?steps=1", content=PNG, headers=RAW).status_code == 200
        assert client.get("/info").json()["queue"]["fraction"] == 0
