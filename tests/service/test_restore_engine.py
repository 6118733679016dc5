"""Restorations in the engine's batches, beside everybody's chains."""

import asyncio
from typing import Any

import torch

from models.bundle import load_bundle
from models.data import load_dataset
from models.pixels import from_uint8
from models.streams import NoiseSource, Stream
from models.tasks.restoration import inpaint
from service.engine import Engine
from service.jobs import Params
from tests.server_process import DIGITS
from tests.service.conftest import wait_for
from tests.service.engine_jobs import DARK, LIGHT, answer, params, settled

LEFT = torch.tensor([True, True, False, False]).expand(1, 4, 4)


def test_only_what_the_mask_marks_moves_and_towards_the_energys_least(engine: Engine) -> None:
    """U = |x|^2 / 2 and next to no noise: n steps leave (1 - rate)^n of the guess, which is white between white."""
    how = params(5, 3, 1e-4, temperature=1e-8 / (2 * 0.1), classify=False)
    found = answer(engine, LIGHT, how, mask=LEFT).purified
    assert torch.equal(found[..., 2:], torch.ones(3, 1, 4, 2))
    torch.testing.assert_close(found[..., :2], torch.full((3, 1, 4, 2), 0.9**5), atol=2e-3, rtol=0)


def test_a_slot_that_held_a_restoration_holds_any_chain_again(engine: Engine) -> None:
    before = answer(engine, LIGHT, params(20, 4), seed=1).purified
    answer(engine, DARK, params(20, 4, classify=False), mask=LEFT)
    assert torch.equal(answer(engine, LIGHT, params(20, 4), seed=1).purified, before)


def test_a_restoration_among_purifications_is_the_one_that_it_is_alone() -> None:
    """On real convolutions, to the bit, and within rounding what `inpaint` makes of the same noise."""
    bundle = load_bundle(DIGITS, torch.device("cpu"))
    engine = Engine(bundle, torch.device("cpu"), slots=4, threads=2)
    engine.start()
    wait_for(lambda: engine.ready)
    image = load_dataset("digits", "test").images[0]
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, 4:] = True
    preset = bundle.manifest.presets["balanced"].model_copy(update={"num_steps": 40, "replicates": 4})

    async def run() -> Any:
        (alone,) = await settled(engine.submit(image, Params(preset, classify=False), seed=3, mask=mask))
        endless = Params(preset.model_copy(update={"num_steps": 10**9, "replicates": 2}))
        neighbour = engine.submit(255 - image, endless, key="neighbour")
        (crowded,) = await settled(engine.submit(image, Params(preset, classify=False), seed=3, mask=mask))
        assert neighbour.steps_done > 0
        neighbour.future.cancel()
        return alone, crowded

    alone, crowded = asyncio.run(run())
    engine.stop()
    assert torch.equal(alone.purified, crowded.purified)
    assert torch.equal(alone.purified[:, ~mask], from_uint8(image)[~mask].expand(4, -1))
    source = NoiseSource(Stream(("seed", 3)).child("replicate", 0), torch.device("cpu"))

    def noise(x: torch.Tensor) -> torch.Tensor:
        drawn = torch.empty_like(x)
        source.fill(drawn)
        return drawn

    single = preset.model_copy(update={"replicates": 1})
    expected = inpaint(bundle.defence.energy, from_uint8(image)[None], mask[None], single, randn_like=noise).images
    torch.testing.assert_close(alone.purified[:1], expected, rtol=0, atol=1e-4)
