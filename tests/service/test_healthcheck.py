"""The containers' health check, against a real server."""

import socket
import subprocess
import sys

import httpx
import pytest

from service.healthcheck import main


def test_a_server_that_is_ready(server: httpx.Client) -> None:
    assert main([str(server.base_url.join("/health/ready"))]) == 0


@pytest.mark.parametrize("path", ["/info/none", "/metrics/none"])
def test_another_answer_than_200(server: httpx.Client, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(server.base_url.join(path))]) == 1
    assert "404" in capsys.readouterr().err


def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/health/ready"
        assert main([url]) == 1
    assert url in capsys.readouterr().err


def test_what_is_no_url(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ready"]) == 1
    assert main(["a", "b"]) == 1
    assert "expected one URL, got 2: a b" in capsys.readouterr().err


def test_it_does_not_import_what_takes_long() -> None:
    code = "import sys, service.healthcheck; print({'torch', 'fastapi', 'pydantic', 'numpy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
