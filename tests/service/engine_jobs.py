"""Jobs for engines on the fake bundle of 4x4 grey images, and their results."""

import asyncio
from typing import Any

import torch
from torch import Tensor

from models.purifier import Preset
from service.engine import Engine
from service.jobs import Params, Ticket

LIGHT = torch.full((1, 4, 4), 255, dtype=torch.uint8)
DARK = torch.zeros((1, 4, 4), dtype=torch.uint8)
FOREVER = 10**9


def params(steps: int = 3, replicates: int = 2, step_size: float = 0.01, **rest: Any) -> Params:
    preset = Preset(
        num_steps=steps, step_size=step_size, temperature=rest.pop("temperature", 1.0), replicates=replicates
    )
    return Params(preset, **rest)


async def settled(*tickets: Ticket) -> list[Any]:
    return await asyncio.wait_for(asyncio.gather(*(t.future for t in tickets), return_exceptions=True), 10)


def answer(engine: Engine, image: Tensor, how: Params, **rest: Any) -> Any:
    async def run() -> Any:
        (result,) = await settled(engine.submit(image, how, **rest))
        return result

    return asyncio.run(run())
