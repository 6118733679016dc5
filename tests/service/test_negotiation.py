"""Accept headers of real clients."""

import pytest

from service.negotiation import prefers


@pytest.mark.parametrize(
    ("accept", "json"),
    [
        ("", False),
        ("*/*", False),
        ("image/png", False),
        ("text/html", False),
        ("application/json", True),
        ("Application/JSON ; q=1", True),
        ("application/json, text/plain, */*", True),
        ("application/json, image/png", False),
        ("image/png;q=0.5, application/json;q=0.9", True),
        ("image/png;q=0.9, application/json;q=0.5", False),
        ("application/*, image/*;q=0.5", True),
        ("image/*, application/json;q=0.1", False),
        ("application/json;q=0, */*", False),
        ("application/json;q=x", False),
        (",;,", False),
    ],
)
def test_json_only_when_it_is_preferred(accept: str, json: bool) -> None:
    assert prefers(accept, "application/json", "image/png") is json
