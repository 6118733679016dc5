"""Who gets in: keys, where they come from, what they open, and that nothing else is open."""

import asyncio
import json
import re
import socket
import tomllib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from starlette.types import Message, Receive, Scope, Send

from models.errors import ConfigError
from service.__main__ import main
from service.auth import Authentication
from service.errors import SettingsError
from service.keys import Key, load_keys, new_key
from service.middleware import DOCS_POLICY, SAFE_HEADERS
from service.settings import Settings

KEYS = "ann:aaa,bob:bbb:metrics,eve:eee:admin,old:ooo,dan:ddd:infer+metrics"
Local = Callable[..., Any]


def digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def assert_refused(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
    problem: dict[str, Any] = response.json()
    assert problem["request_id"] == response.headers["x-request-id"]
    assert SAFE_HEADERS.items() <= {name.title(): value for name, value in response.headers.items()}.items()
    return problem


def test_every_route_but_the_probes_needs_a_key(local: Local) -> None:
    async def run() -> None:
        async with local(api_keys=KEYS) as client:
            routes = [(str(route.path), route.methods) for route in iter_route_contexts(client._transport.app.routes)]
            assert {"/", "/docs", "/docs/assets", "/openapi.json", "/classify", "/v1/purify"} <= {
                path for path, _ in routes
            }
            for path, methods in [*routes, ("/docs/assets/swagger-ui.css", {"GET"}), ("/nowhere", None)]:
                for method in (methods or {"GET", "HEAD", "OPTIONS", "POST", "DELETE"}) | {"TRACE"}:
                    response = await client.request(method, re.sub(r"{.*?}", "x", path))
                    expected = {200, 405} if path.startswith(("/health/", "/v2/health/")) else {401}
                    assert response.status_code in expected, (method, path)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "Bearer aaa"}, 200),
        ({"Authorization": "bearer  aaa "}, 200),
        ({"X-API-Key": "aaa"}, 200),
        ({"X-API-Key": "ooo"}, 200),
        ({"X-API-Key": "aaa", "Authorization": "Bearer aaa"}, 200),
        ({"X-API-Key": "aaa", "Authorization": "Bearer ooo"}, 401),
        ({"X-API-Key": "ooo", "Authorization": "Bearer no"}, 401),
        ({"X-API-Key": "aaa", "Authorization": "Basic aaa"}, 401),
        ({"Authorization": "Basic aaa"}, 401),
        ({"Authorization": "aaa"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"X-API-Key": ""}, 401),
        ({"X-API-Key": "aa"}, 401),
        ({"X-API-Key": "AAA"}, 401),
        ({"X-API-Key": digest("aaa")}, 401),
        ({"X-API-Key": "ann"}, 401),
        ({"X-API-Key": "ann:aaa"}, 401),
        ({"X-API-Key": b"\xff"}, 401),
        ({"X-API-Key": "bbb"}, 403),
        ({"X-API-Key": "eee"}, 200),
    ],
)
def test_what_opens_the_index(local: Local, headers: dict[str, Any], status: int) -> None:
    async def run() -> None:
        async with local(api_keys=KEYS) as client:
            response = await client.get("/", headers=headers)
            if status == 200:
                assert response.status_code == 200, response.text
            else:
                problem = assert_refused(response, status)
                assert "aaa" not in problem["detail"]

    asyncio.run(run())


def test_two_headers_of_one_kind_must_agree(local: Local) -> None:
    async def run() -> None:
        async with local(api_keys=KEYS) as client:
            for second, status in (("aaa", 200), ("ooo", 401)):
                headers = [("X-API-Key", "aaa"), ("X-API-Key", second)]
                assert (await client.get("/", headers=headers)).status_code == status

    asyncio.run(run())


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/metrics/x"])
def test_metrics_have_a_scope_of_their_own(local: Local, path: str) -> None:
    async def run() -> None:
        async with local(api_keys=KEYS) as client:
            problem = assert_refused(await client.get(path, headers={"X-API-Key": "aaa"}), 403)
            assert problem["type"] == "urn:limpid:problem:forbidden"
            assert "needs the scope metrics, the key ann has infer" in problem["detail"]
            for secret in ("bbb", "eee", "ddd"):
                assert (await client.get(path, headers={"X-API-Key": secret})).status_code in (200, 404)

    asyncio.run(run())


async def call(keys: tuple[Key, ...], path: str, *headers: tuple[bytes, bytes], root_path: str = "") -> Any:
    """The caller that the application behind Authentication sees, or the status of a refusal."""
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["state"]["caller"])

    async def receive() -> Message:
        raise AssertionError("the body was asked for")

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            seen.append(message["status"])

    scope = {"type": "http", "method": "POST", "path": path, "root_path": root_path, "headers": list(headers)}
    await Authentication(app, keys)(scope | {"state": {"request_id": "x"}}, receive, send)
    (result,) = seen
    return result


def test_the_application_learns_who_calls_and_a_refusal_reads_no_body() -> None:
    async def run() -> None:
        keys = load_keys(Settings(api_keys=KEYS))
        ann = await call(keys, "/classify", (b"x-api-key", b"aaa"))
        assert (ann.id, ann.scopes) == ("ann", {"infer"})
        eve = await call(keys, "/classify", (b"authorization", b"Bearer eee"))
        assert (eve.id, eve.scopes) == ("eve", {"infer", "metrics", "admin"})
        assert await call(keys, "/classify") == 401
        assert await call(keys, "/classify", (b"x-api-key", b"bbb")) == 403
        probe = await call(keys, "/health/live", (b"x-api-key", b"wrong"))
        assert (probe.id, probe.scopes) == ("anonymous", frozenset())
        anyone = await call((), "/classify")
        assert (anyone.id, anyone.scopes) == ("anonymous", {"infer", "metrics", "admin"})

    asyncio.run(run())


def test_a_prefix_before_the_server_moves_the_probes_with_it() -> None:
    async def run() -> None:
        keys = load_keys(Settings(api_keys=KEYS))
        assert (await call(keys, "/limpid/health/live", root_path="/limpid")).id == "anonymous"
        assert await call(keys, "/limpid/classify", root_path="/limpid") == 401
        assert await call(keys, "/metrics/health/live", (b"x-api-key", b"aaa")) == 403
        assert await call(keys, "/limpid/metrics", (b"x-api-key", b"aaa"), root_path="/limpid") == 403

    asyncio.run(run())


@pytest.mark.parametrize("path", ["/health", "/healthy", "/v2", "//health/live", "/x/../health/live", "/HEALTH/live"])
def test_paths_that_look_like_probes_are_not_open(path: str) -> None:
    assert asyncio.run(call(load_keys(Settings(api_keys=KEYS)), path)) == 401


def test_a_secret_that_is_not_ascii_is_compared_as_the_bytes_sent() -> None:
    keys = load_keys(Settings(api_keys="ann:é"))
    assert asyncio.run(call(keys, "/", (b"x-api-key", "é".encode()))).id == "ann"
    assert asyncio.run(call(keys, "/", (b"x-api-key", b"\xe9"))) == 401


def test_the_keys_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(
        f'[[keys]]\nid = "ann"\nsha256 = "{digest("aaa").upper()}"\nrate_limit = 2.5\n'
        f'[[keys]]\nid = "ann-new"\nsha256 = "{digest("new")}"\nscopes = ["infer", "metrics"]\n'
    )
    old, new, extra = load_keys(Settings(keys_file=path, api_keys="ci:x"))
    assert (old.id, old.scopes, old.rate_limit) == ("ann", {"infer"}, 2.5)
    assert (new.scopes, new.rate_limit, extra.id) == ({"infer", "metrics"}, None, "ci")
    for secret, name in ((b"aaa", "ann"), (b"new", "ann-new"), (b"x", "ci")):
        assert asyncio.run(call((old, new, extra), "/", (b"x-api-key", secret))).id == name


ENTRY = f'[[keys]]\nid = "ann"\nsha256 = "{digest("aaa")}"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "keys.toml: keys: Field required"),
        ("keys = []", "keys.toml: keys: .*at least 1"),
        ("[[key]]", "key: Extra inputs"),
        ('[[keys]]\nid = "ann"', "keys.0.sha256: Field required"),
        (ENTRY + "secret = 'hush'", "keys.0.secret: Extra inputs"),
        (ENTRY + "scopes = ['root']", "keys.0.scopes.0: .*'infer', 'metrics' or 'admin', got 'root'"),
        (ENTRY + "scopes = []", r"keys.0.scopes: .*got \[\]"),
        (ENTRY + "rate_limit = 0", "keys.0.rate_limit: .*got 0"),
        (ENTRY.replace('"ann"', '"a b"'), "keys.0.id: .*got 'a b'"),
        (f'[[keys]]\nid = "ann"\nsha256 = "hush{digest("")}"', "keys.0.sha256: String should match"),
        ('[[keys]]\nid = "ann"\nsha256 = "hush"', "keys.0.sha256: String should match"),
        (ENTRY + ENTRY, "one id a key, the id of ann is there twice"),
        (ENTRY + ENTRY.replace("ann", "bob"), "one secret a key, the secret of ann is there twice"),
        ("[[keys]", "keys.toml: .*line 1"),
    ],
)
def test_a_wrong_keys_file_is_refused_without_showing_a_secret(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises((SettingsError, ConfigError), match=message) as caught:
        load_keys(Settings(keys_file=path))
    assert "hush" not in str(caught.value)
    assert digest("aaa") not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "entry 1 of the api_keys: expected id:secret"),
        ("hush", "entry 1"),
        ("ci:hush,", "entry 2"),
        ("ci:", "entry 1"),
        ("ci:hush:infer:x", "entry 1"),
        ("ci:hu sh", "without spaces"),
        ("ci:hush:root", "entry 1 of the api_keys: scopes.0: .*got 'root'"),
        ("a/b:hush", "id: .*got 'a/b'"),
        ("ci:hush,ci:other", "the id of ci is there twice"),
        ("ci:hush,cd:hush", "the secret of ci is there twice"),
    ],
)
def test_wrong_api_keys_are_refused_without_showing_a_secret(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        load_keys(Settings(api_keys=text))
    assert "hush" not in str(caught.value)


def test_wrong_keys_end_the_program(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--keys-file", str(tmp_path / "none.toml")]) == 2
    assert "none.toml does not exist" in capsys.readouterr().err


def test_the_key_command_prints_an_entry_and_its_secret_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["key", "ann", "--scopes", "infer+metrics"]) == 0
    output = capsys.readouterr()
    (secret,) = re.findall("Bearer (.+)", output.err)
    assert len(secret) >= 43
    assert secret not in output.out
    assert tomllib.loads(output.out) == {
        "keys": [{"id": "ann", "sha256": digest(secret), "scopes": ["infer", "metrics"]}]
    }
    assert main(["key", "bob"]) == 0
    path = tmp_path / "keys.toml"
    path.write_text(output.out + capsys.readouterr().out)
    assert [(key.id, sorted(key.scopes)) for key in load_keys(Settings(keys_file=path))] == [
        ("ann", ["infer", "metrics"]),
        ("bob", ["infer"]),
    ]
    assert new_key("ann", "infer")[0] != new_key("ann", "infer")[0]


def test_no_secret_begins_as_a_flag_does() -> None:
    """One in 32 characters is no letter and no digit: a thousand secrets without one at the front are no chance."""
    assert all(new_key("ann", "infer")[0][0].isalnum() for _ in range(1000))


@pytest.mark.parametrize("arguments", [("a b",), ("ann", "--scopes", "root"), ("ann", "--scopes", "")])
def test_the_key_command_refuses(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    assert main(["key", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "got" in output.err


def test_without_documentation_there_is_none(local: Local) -> None:
    async def run() -> None:
        async with local(docs=False) as client:
            assert "GET /docs" not in (await client.get("/")).json()["endpoints"]
            for path in ("/docs", "/openapi.json", "/docs/assets/swagger-ui.css"):
                assert (await client.get(path)).status_code == 404
            assert (await client.get("/")).status_code == 200

    asyncio.run(run())


def test_a_real_server_with_keys(serve: Callable[..., Any], tmp_path: Path) -> None:
    path, log = tmp_path / "keys.toml", tmp_path / "log"
    secret, key = new_key("ann", "infer")
    path.write_text(key.to_toml())
    with serve(log, "--keys-file", str(path), LIMPID_API_KEYS="ops:hush-hush:metrics") as client:
        assert client.get("/health/live").status_code == 200
        assert_refused(client.get("/"), 401)
        assert_refused(client.get("/", headers={"X-API-Key": "hush-hush"}), 403)
        for headers in ({"X-API-Key": secret}, {"Authorization": f"Bearer {secret}"}):
            assert client.get("/", headers=headers).status_code == 200
        page = client.get("/docs", headers={"X-API-Key": secret})
        assert page.headers["content-security-policy"] == DOCS_POLICY
        assert_refused(client.post("/classify", content=b"x" * 2**20, headers={"Content-Type": "image/png"}), 401)
        body_never_comes = b"POST /classify HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
        assert b" 401 " in _head(client, body_never_comes)
        for path in (b"/health/../", b"/health/%2e%2e/classify", b"/health/..%2fopenapi.json"):
            assert b" 404 " in _head(client, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    text = log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    access = [(line["key"], line["status"]) for line in lines if line["logger"] == "service.access"]
    assert access == [(None, 401), ("ops", 403), ("ann", 200), ("ann", 200), ("ann", 200), (None, 401), (None, 401)]
    assert secret not in text
    assert "hush-hush" not in text


def _head(client: httpx.Client, request: bytes) -> bytes:
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=10) as connection:
        connection.sendall(request)
        return connection.recv(64)
