"""A server without keys is not for the web pages of others that its user's browser has open."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

Local = Callable[..., Any]
KEY = {"api_keys": "ann:aaa"}
EVIL = "http://evil.example"


async def status_and_detail(client: Any, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
    response = await client.request(method, path, headers=headers)
    return response.status_code, response.json().get("detail", "")


@pytest.mark.parametrize("settings", [{}, {"insecure": True}, {"demo": True}], ids=str)
def test_a_name_that_a_page_had_resolved_to_this_machine_opens_nothing(local: Local, settings: dict[str, bool]) -> None:
    async def run() -> None:
        async with local(**settings) as client:
            for method, path in (("GET", "/info"), ("GET", "/"), ("POST", "/classify"), ("POST", "/demo/attack")):
                for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example"):
                    status, detail = await status_and_detail(client, method, path, {"Host": host})
                    assert status == 403, (method, path, host)
                    assert f"Host is {host}; " in detail

    asyncio.run(run())


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost.:8100", "127.0.0.1:8000", "127.0.0.2", "[::1]:8000", "10.1.2.3:8000", "box", "b.c:1"],
)
def test_this_machine_addresses_and_names_of_the_operator_are_answered(local: Local, host: str) -> None:
    async def run() -> None:
        async with local(host="box", hosts="a, B.c") as client:
            assert (await client.get("/info", headers={"Host": host})).status_code == 200

    asyncio.run(run())


@pytest.mark.parametrize("host", ["::1", "127.0.0.1"])
def test_an_address_to_listen_on_lets_no_nonsense_in(local: Local, host: str) -> None:
    async def run() -> None:
        async with local(host=host) as client:
            for wrong in ("", "[", ":8000"):
                assert (await client.get("/info", headers={"Host": wrong})).status_code == 403

    asyncio.run(run())


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"Sec-Fetch-Site": "cross-site", "Origin": EVIL}, "Sec-Fetch-Site is cross-site"),
        ({"Sec-Fetch-Site": "cross-site"}, "Sec-Fetch-Site is cross-site"),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"}, "Sec-Fetch-Site is same-site"),
        ({"Origin": EVIL}, f"Origin is {EVIL}"),
        ({"Origin": "null"}, "Origin is null"),
        ({"Origin": "http://localhost:3000"}, "Origin is http://localhost:3000"),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, None),
        ({"Sec-Fetch-Site": "none"}, None),
        ({"Origin": "http://localhost"}, None),
        ({"Origin": "https://localhost"}, None),
        ({}, None),
    ],
)
def test_foreign_pages_send_nothing(local: Local, headers: dict[str, str], refused: str | None) -> None:
    """415, for a body of no type, says that a request went through."""

    async def run() -> None:
        async with local(demo=True) as client:
            for path in ("/classify", "/v1/purify", "/demo/attack"):
                status, detail = await status_and_detail(client, "POST", path, headers)
                assert status == (403 if refused else 415), (path, detail)
                assert refused is None or detail.startswith(refused + ";")
            assert (await client.get("/info", headers=headers)).status_code == 200, "a link may be followed"

    asyncio.run(run())


def test_probes_and_metrics_are_asked_for_by_the_names_of_a_cluster(local: Local) -> None:
    async def run() -> None:
        async with local(insecure=True) as client:
            for path in ("/health/live", "/health/ready", "/v2/health/live", "/metrics"):
                answer = await client.get(path, headers={"Host": "limpid.serving.svc.cluster.local"})
                assert answer.status_code == 200, path

    asyncio.run(run())


def test_keys_are_what_no_page_has_so_names_do_not_matter(local: Local) -> None:
    async def run() -> None:
        async with local(**KEY) as client:
            headers = {"Host": "limpid.example", "Origin": EVIL, "Sec-Fetch-Site": "cross-site", "X-API-Key": "aaa"}
            assert (await client.get("/info", headers=headers)).status_code == 200
            assert (await client.post("/classify", headers=headers)).status_code == 415

    asyncio.run(run())
