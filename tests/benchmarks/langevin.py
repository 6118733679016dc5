"""Langevin steps a second: ours against the loop that papers publish, in one process, taking turns."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from models.langevin import LangevinConfig, run_langevin
from models.networks import build_network

ROUNDS = 5
STEPS = 20
NETWORKS = {"light": {"width": 32}, "sngan32": {"width": 64}}
BATCHES = (1, 64)


def eager_loop(network: nn.Module, x: Tensor) -> Tensor:
    """The published way: float32, default memory layout, autograd through an attached loop variable."""
    x = x.clone().requires_grad_(True)
    for _ in range(STEPS):
        (grad,) = torch.autograd.grad(network(x).sum(), x)
        x.data -= 0.5 * grad
        x.data += 0.01 * torch.randn_like(x)
    return x.detach()


def ways(name: str, arguments: dict[str, Any], x: Tensor) -> dict[str, Callable[[], Tensor]]:
    """What is compared; each call runs STEPS steps on the batch."""
    sampler = LangevinConfig(num_steps=STEPS, step_size=0.01, temperature=1e-4)
    low = sampler.model_copy(update={"precision": "bfloat16"})
    network, packed = build_network(name, arguments), build_network(name, arguments).requires_grad_(False)
    packed = packed.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    xp = x.contiguous(memory_format=torch.channels_last)
    return {
        "eager float32 loop": lambda: eager_loop(network, x),
        "ours, float32": lambda: run_langevin(packed, xp, sampler)[0],
        "ours, bfloat16": lambda: run_langevin(packed, xp, low)[0],
    }


def measure_langevin() -> dict[str, Any]:
    """Image-steps a second of each way: median, slowest and fastest of ROUNDS turns, and the median ratio."""
    rows = []
    for name, arguments in NETWORKS.items():
        for batch in BATCHES:
            x = torch.rand(batch, 3, 32, 32) * 2 - 1
            rates = take_turns(ways(name, arguments, x), batch * STEPS)
            base = rates["eager float32 loop"]
            for way, values in rates.items():
                rows.append(
                    {
                        "network": f"{name} {arguments['width']}",
                        "batch": batch,
                        "way": way,
                        "median": statistics.median(values),
                        "slowest": min(values),
                        "fastest": max(values),
                        "ratio": statistics.median(a / b for a, b in zip(values, base, strict=True)),
                    }
                )
    return {"torch": torch.__version__, "threads": torch.get_num_threads(), "steps": STEPS, "rows": rows}


def take_turns(candidates: dict[str, Callable[[], Tensor]], work: int) -> dict[str, list[float]]:
    """Each candidate once a round, so that a drift of the machine's speed touches all alike; the first is a warm-up."""
    rates: dict[str, list[float]] = {way: [] for way in candidates}
    for round_ in range(ROUNDS + 1):
        for way, run in candidates.items():
            start = time.perf_counter()
            run()
            if round_:
                rates[way].append(work / (time.perf_counter() - start))
    return rates
