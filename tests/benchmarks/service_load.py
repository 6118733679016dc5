"""A server under more than it can do: Limpid, then the same bundle behind LitServe, offered the same requests.

Both are real processes with the same number of threads; the load comes over loopback from this one. Requests arrive at
random and do not wait for each other, at `overload` times the bare sampler's speed. LitServe has no bound on what it
lets in, so `timeout`, after which a client gives up, is what keeps the comparison finite.
"""

import asyncio
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field

from models.bundle import load_bundle, read_manifest
from models.config import Frozen
from models.image_files import encode_png
from models.purifier import CHAINS_PER_BATCH
from tests.benchmarks.aims import at_least, at_most
from tests.benchmarks.load import Outcome, Watch, example_image, offer, poisson_arrivals, purify_request
from tests.benchmarks.processes import ROOT, BenchmarkError, Server, serving
from tests.benchmarks.service_engine import bare_rate

LITSERVE = "0.2.19"
HEALTH_AIM = 0.05
LATENCY_AIM = 5.0
GROWTH_AIM = 32.0
WARM_UP = 8
"""Requests of each length that are answered before the measurement."""


class Setting(Frozen):
    """The load.

    Args:
        lengths, shares: steps of a request, and how often each occurs.
        overload: offered image-steps a second, as a multiple of the bare sampler's.
        timeout: seconds after which a client gives up.
        flags: more of `python -m service`.
        litserve: the Python that has LitServe; "" leaves LitServe out.
    """

    bundle: str = "models/zoo/cifar10-midrun"
    seconds: float = Field(120.0, gt=0)
    overload: float = Field(1.3, gt=0)
    lengths: tuple[int, ...] = (50, 200, 1000)
    shares: tuple[float, ...] = (0.7, 0.2, 0.1)
    timeout: float = Field(60.0, gt=0)
    seed: int = 0
    flags: tuple[str, ...] = ()
    litserve: str = Field(".venv/litserve/bin/python", exclude=True)  # a machine's path: not in the result


def measure_service_load(setting: Setting) -> dict[str, Any]:
    """Both servers under the same arrivals, one after the other."""
    if setting.litserve:
        _check_litserve(setting.litserve)
    _allow_connections()
    manifest, capacity = read_manifest(ROOT / setting.bundle), _capacity(setting)
    work = sum(steps * share for steps, share in zip(setting.lengths, setting.shares, strict=True))
    rate = setting.overload * capacity / work
    png = encode_png(example_image(manifest.image))
    with serving(_limpid(setting), "/health/ready") as server:
        rows = [{"server": "limpid"} | asyncio.run(_load(server, "/health/live", png, setting, rate))]
    if setting.litserve:
        with serving(_litserve(setting), "/health") as server:
            rows.append({"server": "litserve"} | asyncio.run(_load(server, "/health", png, setting, rate)))
    return {
        "bundle": manifest.digest,
        "capacity": capacity,
        "litserve": LITSERVE if setting.litserve else None,
        "arrivals_a_second": rate,
        "rows": rows,
        "aims": _aims(rows),
    }


def _check_litserve(python: str) -> None:
    """Raise BenchmarkError, which says how to install it, unless that Python has the LitServe that is meant."""
    code = "import importlib.metadata as m; print(m.version('litserve'))"
    try:
        done = subprocess.run([python, "-c", code], cwd=ROOT, capture_output=True, text=True)
        found = done.stdout.strip() or "none"
    except OSError as error:
        found = error.strerror or str(error)
    if found != LITSERVE:
        raise BenchmarkError(
            f"litserve={python!r} must be a Python with LitServe {LITSERVE}, found {found}; `make bench` makes it, "
            "tests/benchmarks/litserve_server.py says how, and litserve='' leaves it out"
        )


def _allow_connections() -> None:
    """A thousand open requests are more files than a shell allows by default."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _capacity(setting: Setting) -> float:
    """Image-steps a second of the bare sampler, after a warm-up."""
    bundle = load_bundle(ROOT / setting.bundle, torch.device("cpu"))
    return [bare_rate(bundle, CHAINS_PER_BATCH, steps) for steps in (5, 100)][-1]


def _limpid(setting: Setting) -> list[str]:
    return [sys.executable, "-m", "service", "--bundle", setting.bundle, "--port", "0", *setting.flags]


def _litserve(setting: Setting) -> list[str]:
    command = [setting.litserve, "-m", "tests.benchmarks.litserve_server", "--bundle", setting.bundle]
    return [*command, "--timeout", str(setting.timeout)]


async def _load(server: Server, health: str, png: bytes, setting: Setting, rate: float) -> dict[str, Any]:
    requests = {steps: purify_request(server, png, steps) for steps in setting.lengths}
    shares = dict(zip(setting.lengths, setting.shares, strict=True))
    warm_up = poisson_arrivals(rate, WARM_UP / rate, shares, setting.seed + 1)
    await offer(server, warm_up, requests, setting.timeout)
    arrivals = poisson_arrivals(rate, setting.seconds, shares, setting.seed)
    async with Watch(server, health) as watch:
        outcomes = await offer(server, arrivals, requests, setting.timeout)
    return _summary(outcomes, watch, setting)


def _summary(outcomes: Sequence[Outcome], watch: Watch, setting: Setting) -> dict[str, Any]:
    answered = [outcome for outcome in outcomes if outcome.answered]
    lasted = max((outcome.ended for outcome in answered), default=setting.seconds)
    resident = [mib for _, mib in watch.resident]
    return {
        "sent": len(outcomes),
        "answers": dict(Counter(_label(outcome) for outcome in outcomes).most_common()),
        "lost": sum(not (outcome.answered or outcome.turned_away) for outcome in outcomes),
        "lengths": [_length(outcomes, steps) for steps in setting.lengths],
        "seconds": lasted,
        "goodput": sum(outcome.arrival.steps for outcome in answered) / lasted,
        "health": _quantiles(watch.latencies) | {"probes": len(watch.latencies), "failed": watch.failed},
        "resident_growth": resident[-1] - resident[len(resident) // 4],
        "resident": watch.resident,
    }


def _label(outcome: Outcome) -> str:
    return outcome.answer + (" with Retry-After" if outcome.retry_after else "")


def _length(outcomes: Sequence[Outcome], steps: int) -> dict[str, Any]:
    """What became of the requests of one length; latencies are of those that were answered."""
    sent = [outcome for outcome in outcomes if outcome.arrival.steps == steps]
    answered = [outcome.seconds for outcome in sent if outcome.answered]
    return {"steps": steps, "sent": len(sent), "answered": len(answered)} | _quantiles(answered)


def _quantiles(seconds: Sequence[float]) -> dict[str, float | None]:
    """Median, 95th percentile and maximum; None of nothing."""
    if not seconds:
        return dict.fromkeys(("p50", "p95", "max"))
    return {name: float(np.quantile(seconds, q)) for name, q in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))}


def _aims(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    limpid, *others = rows
    aims = [
        at_most("answers other than 2xx or 503 with Retry-After", limpid["lost"], 0),
        at_most("slowest GET /health/live (s)", limpid["health"]["max"], HEALTH_AIM),
        at_most("failed GET /health/live", limpid["health"]["failed"], 0),
        at_most("memory's growth from a quarter of the time to its end (MiB)", limpid["resident_growth"], GROWTH_AIM),
    ]
    for other in others:
        shortest = limpid["lengths"][0]["steps"]
        latency = _ratio(other["lengths"][0]["p95"], limpid["lengths"][0]["p95"])
        aims.append(at_least(f"times lower p95 of {shortest} steps than {other['server']}", latency, LATENCY_AIM))
        aims.append(
            at_least(f"times the goodput of {other['server']}", _ratio(limpid["goodput"], other["goodput"]), 1.0)
        )
    return aims


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None
