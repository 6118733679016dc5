"""What was measured of the bundle, for the console: the worst case stands first there, as everywhere."""

import math
from typing import Any

from pydantic import BaseModel, Field

from models.manifest import Manifest

SHOWN_BUDGET = 16
"""In 1/255 units, twice what CIFAR-10 is usually attacked with."""


class Report(BaseModel):
    """The measurements that a bundle carries, as `attacks_eval` wrote them."""

    name: str
    bundle: str
    weights: str
    robustness: dict[str, Any] | None = Field(
        description="Against an attacker who knows the defence: worst_case, attacks, curves, indicators, checklist; "
        "null when nothing was measured."
    )
    baseline: dict[str, Any] | None = Field(
        description="Against PGD on the bare classifier, by preset; null when nothing was measured."
    )


def report(manifest: Manifest) -> Report:
    """The bundle's own measurements."""
    return Report(
        name=manifest.name,
        bundle=manifest.digest,
        weights=manifest.weights_digest,
        robustness=manifest.measured.get("robustness"),
        baseline=manifest.measured.get("baseline"),
    )


def largest_budget(manifest: Manifest) -> int:
    """The largest attack that a demonstration makes, in 1/255 units: no less than what the report is about."""
    threat = manifest.measured.get("robustness", {}).get("threat", {})
    reported = threat.get("budget", 0.0) if threat.get("norm") == "linf" else 0.0
    return max(SHOWN_BUDGET, math.ceil(reported))
