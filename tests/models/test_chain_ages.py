"""The ages that a recipe implies, against the papers' numbers and against banks that run."""

import numpy as np
import pytest
import torch

from models.banks import Fresh, PersistentBank
from models.training.burn_in import BurnInChains
from models.training.diagnostics import Series
from models.training.diagnostics_ages import AgeMix, age_mixes
from models.training.initialisers import PersistentChains
from models.training.recipe import EnergyRecipe, load_recipe

SLOTS = 8000
MOST = 60


def mix_of(recipe: str, *overrides: str, update: int = 0) -> dict[str, AgeMix]:
    loaded = load_recipe(recipe, overrides)
    assert isinstance(loaded, EnergyRecipe)
    return age_mixes(loaded, update)


def empty(count: int) -> Fresh:
    return Fresh(torch.zeros(count, 1, 1, 1))


def shares(ages: torch.Tensor) -> Series:
    counted: Series = np.bincount(ages.numpy(), minlength=MOST + 1)[: MOST + 1] / len(ages)
    return counted


def distance(a: Series, b: Series) -> float:
    """Total variation."""
    return float(np.abs(a - b).sum()) / 2


def run_bank(drawn: int, probability: float, max_age: int, updates: int) -> Series:
    bank = PersistentBank.filled(empty, SLOTS, torch.float32)
    generator = torch.Generator().manual_seed(0)
    chains = PersistentChains(bank, empty, drawn, ((0, probability),), max_age, generator)
    for update in range(updates):
        started = chains.start(update)
        chains.finish(started, started.starts.images)
    return shares(bank.ages)


def test_the_published_short_run_mix() -> None:
    """A chance of one half and at most four updates: 8, 4, 2 and 1 fifteenths."""
    mix = AgeMix(restart=0.5, first=1, limit=4, drawn=0.1).stationary(5)
    assert mix is not None
    assert mix.tolist() == pytest.approx([0, 8 / 15, 4 / 15, 2 / 15, 1 / 15, 0])


@pytest.mark.parametrize(("probability", "max_age"), [(0.5, 2), (0.1, 0), (0.05, 12), (0.0, 5)])
def test_a_bank_comes_to_the_stationary_mix(probability: float, max_age: int) -> None:
    changed = (f"short_run.rejuvenation_prob={probability}", f"short_run.max_age={max_age}")
    mix = mix_of("digits_short", "short_run.batch_size=64", "short_run.bank_size=128", *changed)["bank"]
    expected = mix.stationary(MOST)
    assert expected is not None
    assert distance(run_bank(SLOTS // 2, probability, max_age, 160), expected) < 0.03


@pytest.mark.parametrize("probability", [0.0, 0.05, 0.3])
def test_a_young_bank_has_the_mix_of_its_updates(probability: float) -> None:
    """Chains that were drawn seldom are young however seldom they restart."""
    mix = AgeMix(probability, 1, None, drawn=0.25)
    expected = mix.after(40, MOST)
    assert expected is not None
    assert expected.sum() == pytest.approx(1.0)
    found = run_bank(SLOTS // 4, probability, 0, 40)
    assert distance(found, expected) < 0.03
    stationary = mix.stationary(MOST)
    assert (stationary is None) == (probability == 0.0)
    if stationary is not None:
        late = mix.after(20_000, MOST)
        assert late is not None
        assert distance(late, stationary) < 1e-6
    if probability == 0.05:
        assert stationary is not None
        assert distance(found, stationary) > 0.1


def test_long_run_banks_have_their_mixes() -> None:
    """Ages that burn in are uniform; the other bank's begin where burning in ends."""
    overrides = ("long_run.burn_in_updates=8", "long_run.burn_in_size=256", "long_run.bank_size=256")
    mixes = mix_of("digits_long", *overrides)
    batch, generator = SLOTS // 4, torch.Generator().manual_seed(0)
    banks = [PersistentBank.filled(empty, SLOTS, torch.float32) for _ in range(2)]
    chains = BurnInChains(banks[0], banks[1], empty, batch, 8, [], generator)
    chains.spread_ages()
    for update in range(60):
        started = chains.start(update)
        chains.finish(started, started.starts.images)
    uniform, young = mixes["burn-in"].stationary(MOST), mixes["learned from"].after(60, MOST)
    assert uniform is not None
    assert young is not None
    assert uniform[:9].tolist() == pytest.approx([1 / 8] * 8 + [0])
    assert distance(shares(banks[0].ages), uniform) < 0.03
    assert distance(shares(banks[1].ages), young) < 0.04


def test_nothing_is_said_where_there_is_no_closed_form() -> None:
    changed = "short_run.rejuvenation_prob=[[0, 0.5], [10, 0.1]]"
    before, after = (mix_of("digits_short", changed, "short_run.max_age=0", update=at)["bank"] for at in (9, 10))
    assert (before.restart, after.restart) == (0.5, 0.1)
    assert before.after(9, MOST) is not None
    assert after.after(10, MOST) is None
    assert after.stationary(MOST) is not None
    anew = "short_run={ updates = 1, data_noise = 0.0, learning_rates = 1e-4, bank_size = 0 }"
    assert mix_of("digits_short", anew) == {}
