"""Langevin steps a second: ours against the loop that papers publish, torchebm and ONNX Runtime, taking turns.

Each way's gradient is compared with float32 autograd before it is timed. The machine's speed at multiplying matrices is
measured in the same turns, so that a share of it stays true on a busy machine.
"""

import statistics
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import onnxruntime
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from models.config import Frozen
from models.precision import DTYPES
from tests.benchmarks.aims import at_least
from tests.benchmarks.langevin_cases import Case, make_problem
from tests.benchmarks.langevin_ways import BASE, OURS, Way, make_ways
from tests.benchmarks.processes import BenchmarkError
from tests.benchmarks.roofline import PEAK_FLOPS, Work, count_work, matrix_product
from tests.benchmarks.torchebm_process import TORCHEBM, Torchebm
from tests.benchmarks.turns import take_turns

LEAST_STEPS = 3
FLOAT32_ERROR = 1e-3
"""What the median image's float32 gradient may differ from autograd's, relative to its length. Not the worst image's:
one activation near 0 that rounding puts on the other side changes a gradient by 1 % or more."""
AIM_BATCH = 64
SPEED_AIM = 3.5
LIGHT_PEAK_AIM, SNGAN_PEAK_AIM = 0.80, 0.90


def _case(network: str, width: int, side: int, *batches: int) -> Case:
    return Case(network=network, width=width, side=side, batches=batches)


class Setting(Frozen):
    """What is measured, in `rounds` turns of about `seconds` for each way.

    The network for 64 pixels is measured at every side too: it takes any, where the light one takes powers of two.

    Args:
        torchebm: the Python that has torchebm; "" leaves torchebm out.
    """

    cases: tuple[Case, ...] = (
        _case("light", 32, 32, 1, 8, 64, 256),
        _case("light", 32, 64, 1, 8),
        _case("light", 32, 128, 1, 8),
        _case("sngan32", 32, 32, 1, 8, 64),
        _case("sngan32", 64, 32, 1, 8, 64),
        _case("sngan32", 128, 32, 1, 8, 64),
        _case("sngan64", 256, 32, 8),
        _case("sngan64", 256, 64, 1, 8),
        _case("sngan64", 256, 128, 8),
        _case("sngan64", 256, 224, 8),
        _case("sngan128", 256, 128, 1, 8),
    )
    rounds: int = Field(5, ge=1)
    seconds: float = Field(0.3, gt=0)
    torchebm: str = Field(".venv/litserve/bin/python", exclude=True)  # a machine's path: not in the result


def measure_langevin(setting: Setting) -> dict[str, Any]:
    """Speed, correctness and share of the machine of each way, on each case and batch."""
    with Torchebm(setting.torchebm) if setting.torchebm else nullcontext() as torchebm:
        rows = [
            row for case in setting.cases for batch in case.batches for row in _measure(case, batch, setting, torchebm)
        ]
    return {
        "onnxruntime": onnxruntime.__version__,
        "torchebm": TORCHEBM if setting.torchebm else None,
        "rows": rows,
        "aims": _aims(rows),
    }


def _measure(case: Case, batch: int, setting: Setting, torchebm: Torchebm | None) -> list[dict[str, Any]]:
    """A row a way."""
    problem = make_problem(case, batch)
    ways, work = make_ways(case, problem, torchebm), count_work(problem.network, problem.x[:1])
    errors = {name: gradient_error(way.gradient, ways[BASE].gradient) for name, way in ways.items()}
    for name, way in ways.items():
        if way.dtype == torch.float32 and not errors[name]["median_error"] < FLOAT32_ERROR:
            raise BenchmarkError(
                f"{name} on {case.title}, {case.side} pixels, batch {batch}: its gradient has a relative error of "
                f"{errors[name]['median_error']:.2g}, expected less than {FLOAT32_ERROR:g}"
            )
    peaks = {dtype: matrix_product(dtype) for dtype in DTYPES.values()}
    runs = {str(dtype): run for dtype, run in peaks.items()} | {name: way.run for name, way in ways.items()}
    turns = take_turns(runs, setting.rounds, setting.seconds, LEAST_STEPS)
    named = {"network": case.title, "side": case.side, "batch": batch}
    return [named | _row(name, way, turns, work, batch) | errors[name] for name, way in ways.items()]


def gradient_error(found: Tensor, exact: Tensor) -> dict[str, float]:
    """The worst image's cosine of gradients [B, ...]; worst and median distance, relative to the exact one's length."""
    found, exact = found.flatten(1).double(), exact.flatten(1).double()
    distance = (found - exact).norm(dim=1) / exact.norm(dim=1)
    return {
        "cosine": float(functional.cosine_similarity(found, exact).min()),
        "relative_error": float(distance.max()),
        "median_error": float(distance.median()),
    }


def _row(name: str, way: Way, turns: Mapping[str, Sequence[float]], work: Work, batch: int) -> dict[str, Any]:
    steps, base, peaks = ([*turns[each]] for each in (name, BASE, str(way.dtype)))
    rates = [batch * each for each in steps]
    shares = [work.flops * a / (PEAK_FLOPS * b) for a, b in zip(rates, peaks, strict=True)]
    return {
        "way": name,
        "dtype": str(way.dtype).removeprefix("torch."),
        "median": statistics.median(rates),
        "slowest": min(rates),
        "fastest": max(rates),
        "milliseconds": 1000 / statistics.median(rates),
        "ratio": statistics.median(a / b for a, b in zip(steps, base, strict=True)),
        "flops": work.flops,
        "intensity": work.intensity(batch, way.dtype),
        "peak_flops": PEAK_FLOPS * statistics.median(peaks),
        "peak_share": statistics.median(shares),
    }


def _aims(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    found = {row["network"]: row for row in rows if (row["way"], row["batch"], row["side"]) == (OURS, AIM_BATCH, 32)}
    light, missing = "light 32", {"ratio": None, "peak_share": None}
    aims = [
        at_least(f"{light}: times the speed of the eager float32 loop", found.get(light, missing)["ratio"], SPEED_AIM)
    ]
    for network in (light, "sngan32 32", "sngan32 64", "sngan32 128"):
        aim = LIGHT_PEAK_AIM if network == light else SNGAN_PEAK_AIM
        share = found.get(network, missing)["peak_share"]
        aims.append(at_least(f"{network}: share of the bfloat16 matrix-multiply peak", share, aim))
    return aims
