"""What the engine makes of one job, on a quadratic energy with known answers."""

import asyncio
from typing import Any

import pytest
import torch
from torch import Tensor

from models.bundle import Bundle
from models.langevin import run_langevin
from models.pixels import from_uint8
from models.streams import NoiseSource, Stream
from service.engine import Engine
from service.errors import (
    SettingsError,
)
from service.jobs import Params, Smoothing
from tests.service.engine_jobs import LIGHT, answer, params, settled


def test_a_result_holds_every_replicate(engine: Engine) -> None:
    result = answer(engine, LIGHT, params(replicates=3))
    assert result.purified.shape == (3, 1, 4, 4)
    assert result.logits.shape == (3, 2)
    assert torch.equal(result.undefended, torch.tensor([-1.0, 1.0]))
    assert not torch.equal(result.purified[0], result.purified[1])
    assert min(result.queue_seconds, result.purify_seconds, result.classify_seconds) >= 0


def test_no_steps_change_nothing(engine: Engine) -> None:
    result = answer(engine, LIGHT, params(steps=0, replicates=1))
    assert torch.equal(result.purified[0], torch.ones(1, 4, 4))
    assert torch.equal(result.logits[0], result.undefended)
    assert result.energy_drop.tolist() == [0.0]


def test_purifying_alone_does_not_classify(engine: Engine) -> None:
    result = answer(engine, LIGHT, params(classify=False))
    assert result.logits is None
    assert result.undefended is None
    assert result.smoothed_logits is None


def test_each_chain_runs_its_own_steps_with_its_own_settings(engine: Engine) -> None:
    """U = |x|^2 / 2 and next to no noise: n steps leave (1 - step_size^2 / 2T)^n of the image, whoever else runs."""

    async def run() -> None:
        rates = (0.5, 0.1, 0.25)
        cases = [(steps, rates[steps % 3], key) for steps in (1, 2, 3, 5, 8, 13, 40) for key in ("a", "b")]
        tickets = [
            engine.submit(LIGHT, params(steps, 3, 1e-4, temperature=1e-8 / (2 * rate)), key=key)
            for steps, rate, key in cases
        ]
        for (steps, rate, _), result in zip(cases, await settled(*tickets), strict=True):
            expected = (1 - rate) ** steps
            assert torch.allclose(result.purified, torch.full((3, 1, 4, 4), expected), atol=2e-3)
            first_and_last = 8.0 - 8.0 * (1 - rate) ** (2 * (steps - 1))  # 16 pixels, U = 16 x^2 / 2
            assert torch.allclose(result.energy_drop, torch.full((3,), first_and_last), atol=2e-2)

    asyncio.run(run())


def test_the_noise_has_the_variance_of_the_chain(engine: Engine) -> None:
    """x' = (1 - a) x + s z has variance s^2 (1 - (1 - a)^2n) / (1 - (1 - a)^2) after n steps."""
    step_size, drift, steps = 0.1, 0.2, 6
    result = answer(engine, LIGHT, params(steps, 256, step_size, temperature=step_size**2 / (2 * drift)))
    exact = step_size**2 * (1 - (1 - drift) ** (2 * steps)) / (1 - (1 - drift) ** 2)
    assert result.purified.mean() == pytest.approx((1 - drift) ** steps, abs=4 * (exact / 4096) ** 0.5)
    assert result.purified.var() == pytest.approx(exact, rel=4 * (2 / 4096) ** 0.5)


def test_noisy_draws_start_from_noise_of_the_given_size(engine: Engine) -> None:
    """sigma is in [0, 1] units, so twice as much in [-1, 1]; the mean of 16 pixels carries a quarter of it."""
    result = answer(engine, LIGHT, params(0, 1, smoothing=Smoothing(400, 0.1)))
    assert result.smoothed_logits.shape == (400, 2)
    means = result.smoothed_logits[:, 1]
    assert means.std() == pytest.approx(0.2 / 4, rel=4 * (1 / 800) ** 0.5)
    assert torch.equal(result.logits[0], result.undefended)


def test_requests_draw_different_noise_and_leave_the_global_generator_alone(engine: Engine) -> None:
    before = torch.get_rng_state()
    first, second = (answer(engine, LIGHT, params()).purified for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_settling_chains_are_those_of_the_sampler(engine: Engine, energy: Any) -> None:
    """The same noise through `run_langevin`: the same steps, however many quanta they were cut into."""
    preset = params(300, 6, 0.2).preset.model_copy(update={"settle": 2.0})
    found = answer(engine, LIGHT, Params(preset), seed=11)
    states, steps = [], []
    for number in range(6):
        source = NoiseSource(Stream(("seed", 11)).child("replicate", number), torch.device("cpu"))

        def noise(x: Tensor, source: NoiseSource = source) -> Tensor:
            drawn = torch.empty_like(x)
            source.fill(drawn)
            return drawn

        state, info = run_langevin(energy, from_uint8(LIGHT)[None], preset, randn_like=noise)
        states.append(state[0])
        steps.append(int(info.num_steps))
    assert found.steps.tolist() == steps
    assert len(set(steps)) > 1
    torch.testing.assert_close(found.purified, torch.stack(states))


def test_classification_has_a_price(engine: Engine) -> None:
    assert engine.classification_cost >= 1
    priced = params(10, 4, smoothing=Smoothing(6, 0.1), classification_cost=3)
    assert priced.cost == 10 * 10 + 11 * 3
    assert params(10, 4, classify=False, classification_cost=3).cost == 40
    assert params(0, 4).cost == 4


def test_presets_of_two_precisions_are_refused(bundle: Bundle) -> None:
    short = bundle.manifest.presets["short"]
    presets = {"short": short, "other": short.model_copy(update={"precision": "bfloat16"})}
    manifest = bundle.manifest.model_copy(update={"presets": presets})
    with pytest.raises(SettingsError, match="bfloat16"):
        Engine(Bundle(bundle.folder, manifest, bundle.defence), torch.device("cpu"))
