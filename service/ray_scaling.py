"""How many replicas a cluster should run: by the seconds of work that wait, not by the number of requests.

A request may ask for one chain of 25 steps or for a thousand of 2,000, so their number says little. This module stands
alone because Ray Serve's controller takes a copy of it.
"""

from typing import Any

METRIC = "queue_seconds"


class QueueSeconds:
    """A policy of Ray Serve: as many replicas as bring the work that waits for each down to `target_seconds`.

    Args:
        target_seconds: of work, at a replica's measured speed, what runs included.
    """

    def __init__(self, target_seconds: float = 5.0) -> None:
        if target_seconds <= 0:
            raise ValueError(f"target_seconds must be above 0, got {target_seconds}")
        self.target_seconds = target_seconds

    def __call__(self, context: Any) -> tuple[float, dict[str, Any]]:
        """The number wanted, which Ray Serve bounds and delays as configured, and no state."""
        waiting = context.aggregated_metrics.get(METRIC, {})
        if not waiting:
            return float(context.target_num_replicas), {}
        return sum(waiting.values()) / self.target_seconds, {}
