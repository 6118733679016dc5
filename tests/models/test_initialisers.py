"""Where chains start and how long they live; an image here counts the updates that its chain has run."""

import pytest
import torch
from torch import Tensor, nn

from models.banks import Fresh, PersistentBank
from models.networks.generator import SNGANGenerator
from models.training.burn_in import BurnInChains
from models.training.frozen_parts import Resized
from models.training.initialisers import (
    FreshChains,
    Initialiser,
    PersistentChains,
    generator_source,
    noise_source,
)
from models.training.schedules import changes, value_at
from tests.models.small_networks import SmallGenerator

BATCH = 16


def zeros(count: int) -> Fresh:
    return Fresh(torch.zeros(count, 1, 1, 1))


def bank(size: int) -> PersistentBank:
    return PersistentBank.filled(zeros, size, torch.float32)


def persistent(size: int, probability: float, max_age: int) -> PersistentChains:
    generator = torch.Generator().manual_seed(0)
    return PersistentChains(bank(size), zeros, BATCH, [(0, probability)], max_age, generator)


def run(chains: Initialiser, updates: int, first: int = 0) -> list[tuple[Tensor, dict[str, float]]]:
    """The negatives and log of each update; running a chain adds 1 to its image."""
    results = []
    for update in range(first, first + updates):
        start = chains.start(update)
        negatives, values = chains.finish(start, start.starts.images + 1)
        results.append((negatives.images.flatten(), values))
    return results


@pytest.mark.parametrize("max_age", [1, 2, 5])
def test_max_age_is_the_exact_number_of_updates(max_age: int) -> None:
    chains = persistent(size=40, probability=0.0, max_age=max_age)
    lengths = torch.cat([negatives for negatives, _ in run(chains, 300)])
    assert sorted(set(lengths.tolist())) == [float(length) for length in range(1, max_age + 1)]
    # Each chain lives for all of them, so after the start each length is as frequent as any other.
    late = lengths[len(lengths) // 2 :]
    for length in range(1, max_age + 1):
        assert (late == length).float().mean().item() == pytest.approx(1 / max_age, abs=0.05)


def test_ages_mix_as_probability_and_limit_say() -> None:
    """p = 1/2 and at most 2 updates: of the chains that an update learns from, 2/3 ran one and 1/3 ran two."""
    chains = persistent(size=BATCH * 4, probability=0.5, max_age=2)
    results = run(chains, 800)[100:]
    lengths = torch.cat([negatives for negatives, _ in results])
    assert (lengths == 1).float().mean().item() == pytest.approx(2 / 3, abs=0.02)
    assert (lengths == 2).float().mean().item() == pytest.approx(1 / 3, abs=0.02)
    restarts = sum(values["restarts"] for _, values in results)
    assert restarts == (lengths == 1).sum()
    assert results[-1][1]["age"] == results[-1][0].mean()


def test_the_probability_follows_its_schedule() -> None:
    generator = torch.Generator().manual_seed(0)
    chains = PersistentChains(bank(BATCH), zeros, BATCH, [(0, 1.0), (5, 0.0)], 0, generator)
    assert [values["restarts"] for _, values in run(chains, 8)] == [BATCH] * 5 + [0] * 3


def test_chains_without_a_bank_start_anew_each_time() -> None:
    chains = FreshChains(zeros, BATCH)
    assert all(negatives.eq(1).all() for negatives, _ in run(chains, 5))
    assert chains.state_dict() == {}


def test_noise_is_uniform() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = noise_source((1, 8, 8), generator)(500).images
    assert noise.aminmax().min >= -1
    assert noise.aminmax().max <= 1
    assert noise.var().item() == pytest.approx(1 / 3, abs=4 * (4 / 45 / noise.numel()) ** 0.5)


def test_a_generators_start_depends_on_its_latent_alone() -> None:
    """Batch norm in training mode would mix the batch into every start."""
    network = SmallGenerator(batch_norm=True)
    starts = generator_source(network, torch.Generator().manual_seed(0))(7)
    assert starts.latents is not None
    alone = torch.cat([network.eval()(latent[None]) for latent in starts.latents])
    assert torch.allclose(starts.images, alone, atol=1e-6)
    assert not starts.images.requires_grad
    statistics = network.norm.state_dict()
    assert statistics["num_batches_tracked"] == 0, "a pass that does not learn has set the statistics"


@pytest.mark.parametrize("generator", [SmallGenerator(), SNGANGenerator(channels=1, widths=[4, 4], latent_size=3)])
def test_no_restarts_are_no_images(generator: nn.Module) -> None:
    starts = generator_source(generator, torch.Generator().manual_seed(0))(0)
    assert starts.images.shape == (0, 1, 8, 8)


class Ramp(nn.Module):
    """z [B, Z] -> [B, 1, 16, 16] that rises by 0.1 a column, from the first entry of z on."""

    latent_size = 3

    def forward(self, z: Tensor) -> Tensor:
        return z[:, :1, None, None] + (0.1 * torch.arange(16.0)).expand(len(z), 1, 16, 16)


@pytest.mark.parametrize("side", [8, 32])
def test_a_resized_ramp_is_the_ramp_at_the_new_pixels(side: int) -> None:
    """The middle of new pixel i is at (i + 1/2) 16 / side - 1/2 of the old ones; a border sees less than the rest."""
    starts = generator_source(Resized(Ramp(), side), torch.Generator().manual_seed(0))(4)
    assert starts.images.shape == (4, 1, side, side)
    assert starts.latents is not None
    places = (torch.arange(side) + 0.5) * 16 / side - 0.5
    expected = starts.latents[:, 0, None] + 0.1 * places
    inside = slice(2, side - 2)
    assert torch.allclose(starts.images[:, 0, side // 2, inside], expected[:, inside], atol=1e-5)
    assert generator_source(Resized(Ramp(), side), torch.Generator())(0).images.shape == (0, 1, side, side)


def burning(size: int, learned: int, updates: int, schedule_changes: tuple[int, ...] = ()) -> BurnInChains:
    generator = torch.Generator().manual_seed(0)
    return BurnInChains(bank(size), bank(learned), zeros, BATCH, updates, schedule_changes, generator)


def test_a_chain_is_promoted_after_exactly_its_burn_in() -> None:
    """Chains of the bank are marked with 1,000, so that a promoted one shows its own count."""
    chains = burning(size=24, learned=40, updates=6)
    chains.bank.states.held.fill_(1000.0)
    promotions = 0.0
    for _ in range(60):
        before = chains.burn_in.ages.clone()
        start = chains.start(0)
        young, old = start.slots.chunk(2)
        _, values = chains.finish(start, start.starts.images + 1)
        promoted = before[young] == 5
        assert values["promotions"] == promoted.sum()
        assert chains.burn_in.ages[young][promoted].eq(0).all()
        assert chains.burn_in.states.read(young)[promoted].eq(0).all()
        assert chains.bank.states.read(old)[promoted].eq(6).all()
        assert chains.bank.ages[old][promoted].eq(6).all()
        promotions += values["promotions"]
    assert promotions >= 24 * (60 * BATCH / 24 // 6 - 2)
    assert chains.burn_in.states.whole().max() < 6


def test_promotions_are_a_steady_stream_from_the_first_update() -> None:
    """Each update ages `BATCH` chains by one, so BATCH / burn-in of them come of age."""
    chains = burning(size=400, learned=100, updates=20)
    chains.spread_ages()
    assert chains.burn_in.ages.min() == 0
    assert chains.burn_in.ages.max() == 19
    promotions = torch.tensor([values["promotions"] for _, values in run(chains, 1000)])
    for part in promotions.chunk(4):
        # 200 expected in 250 updates; close to Poisson's standard deviation of 14 at most
        assert part.sum().item() == pytest.approx(250 * BATCH / 20, abs=50)


def test_every_slot_of_both_banks_is_used() -> None:
    """Sizes that are no multiple of the batch keep their last slots."""
    chains = burning(size=100, learned=50, updates=1000)
    run(chains, 200)
    assert chains.burn_in.ages.shape == (100,)
    assert chains.bank.ages.shape == (50,)
    assert chains.burn_in.ages.min() > 0
    assert chains.bank.ages.min() > 0


def test_burning_chains_are_not_learned_from() -> None:
    chains = burning(size=BATCH, learned=BATCH, updates=5)
    chains.bank.states.held.fill_(1000.0)
    negatives, _ = run(chains, 1)[0]
    assert negatives.shape == (BATCH,)
    assert negatives.eq(1001).all()


def test_ages_are_spread_again_where_the_number_of_steps_changes() -> None:
    schedule = ((0, 50), (30, 100), (60, 100))
    assert changes(schedule) == [30]
    chains = burning(size=400, learned=100, updates=20, schedule_changes=tuple(changes(schedule)))
    run(chains, 30)
    assert chains.burn_in.ages.max() < 10, "400 chains, 16 an update"
    run(chains, 1, first=30)
    assert chains.burn_in.ages.float().mean().item() == pytest.approx(9.5, abs=1.5)
    assert [value_at(schedule, update) for update in (29, 30, 61)] == [50, 100, 100]
