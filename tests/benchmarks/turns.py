"""Several ways of doing work, timed in turns, so that a drift of the machine's speed touches all alike."""

import time
from collections.abc import Callable, Mapping

Run = Callable[[int], object]
"""Does its unit of work that many times."""


def take_turns(ways: Mapping[str, Run], rounds: int, seconds: float, least: int) -> dict[str, list[float]]:
    """Units of work a second of each way, in each round.

    Args:
        seconds: about how long a turn lasts; how many units that is, each way's warm-up tells.
        least: units of a turn, however long they take.
    """
    lengths = {}
    for name, run in ways.items():
        run(least)
        lengths[name] = max(least, round(seconds * _rate(run, least)))
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            rates[name].append(_rate(run, lengths[name]))
    return rates


def _rate(run: Run, units: int) -> float:
    start = time.perf_counter()
    run(units)
    return units / (time.perf_counter() - start)
