"""Which media type an Accept header prefers (RFC 9110, section 12.5.1)."""

from collections.abc import Sequence


def choose(accept: str, offers: Sequence[str]) -> str:
    """The offer that `accept` ranks highest, by quality and then by how exactly it is named; the first of equals."""
    return max(offers, key=lambda offer: _rank(accept, offer))


def _rank(accept: str, media_type: str) -> tuple[float, int]:
    """(quality, specificity) that the most specific matching range gives; (0, 0) when none matches or it is refused."""
    ranges = {media_type: 2, media_type.partition("/")[0] + "/*": 1, "*/*": 0}
    quality, specificity = 0.0, -1
    for item in accept.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        if ranges.get(name, -1) > specificity:
            quality, specificity = _quality(parameters), ranges[name]
    return (quality, specificity) if quality > 0.0 else (0.0, 0)


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0
