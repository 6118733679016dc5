"""Accept headers of real clients."""

import pytest

from service.negotiation import choose


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
    assert choose(accept, ("image/png", "application/json")) == ("application/json" if json else "image/png")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("*/*", "application/json"),
        ("text/event-stream", "text/event-stream"),
        ("text/event-stream, */*;q=0.1", "text/event-stream"),
        ("text/event-stream;q=0.5, application/json", "application/json"),
        ("text/html", "application/json"),
        ("text/event-stream;q=0", "application/json"),
    ],
)
def test_events_only_when_they_are_named(accept: str, chosen: str) -> None:
    assert choose(accept, ("application/json", "text/event-stream")) == chosen
