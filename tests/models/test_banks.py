import pytest
import torch
from torch import Tensor

from models.banks import FILLED_AT_ONCE, Fresh, PersistentBank, Source
from models.training.distributed import ShardedRows, World


def numbered_bank(size: int) -> PersistentBank:
    """Slot i holds the constant i."""
    states = torch.arange(float(size)).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()
    return PersistentBank(ShardedRows(states, size))


def fresh(count: int) -> Fresh:
    """Images that no numbered slot holds."""
    return Fresh(torch.full((count, 1, 2, 2), -1.0))


def content(bank: PersistentBank) -> Tensor:
    return bank.states.whole()[:, 0, 0, 0]


def test_chains_return_to_their_own_slots() -> None:
    bank = numbered_bank(20)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        slots = bank.draw(8, generator)
        assert len(set(slots.tolist())) == 8
        restarted = bank.due(slots, 0.0, 0, generator)
        starts = bank.starts(slots, fresh(0), restarted)
        assert torch.equal(starts.images[:, 0, 0, 0], slots.float())
        bank.put(slots, starts, restarted)
    assert torch.equal(content(bank), torch.arange(20.0))
    assert bank.ages.sum() == 50 * 8


def test_rejuvenation_happens_with_its_probability_and_restarts_age() -> None:
    bank = numbered_bank(1000)
    bank.ages += 7
    generator = torch.Generator().manual_seed(0)
    slots = bank.draw(1000, generator)
    restarted = bank.due(slots, 0.2, 0, generator)
    starts = bank.starts(slots, fresh(int(restarted.sum())), restarted)
    # 200 expected, standard deviation 12.6
    assert 150 < int(restarted.sum()) < 250
    assert torch.equal(starts.images[:, 0, 0, 0] == -1.0, restarted)
    bank.put(slots, starts, restarted)
    assert torch.equal(bank.ages[slots], torch.where(restarted, 1, 8))


def test_certain_and_impossible_rejuvenation() -> None:
    bank, generator = numbered_bank(10), torch.Generator().manual_seed(0)
    slots = bank.draw(10, generator)
    assert bank.due(slots, 1.0, 0, generator).all()
    assert not bank.due(slots, 0.0, 0, generator).any()


def test_ages_follow_the_geometric_law() -> None:
    """With restart probability p at every visit, the stationary mean age is 1 / p."""
    bank, generator = numbered_bank(2000), torch.Generator().manual_seed(0)
    for _ in range(60):
        slots = bank.draw(2000, generator)
        bank.put(slots, fresh(2000), bank.due(slots, 0.25, 0, generator))
    assert bank.ages.float().mean().item() == pytest.approx(4.0, abs=0.35)


def test_latents_stay_with_the_chains_that_they_started() -> None:
    """Every image is its latent's first entry, whichever chains restart."""
    generator = torch.Generator().manual_seed(0)

    def source(count: int) -> Fresh:
        latents = torch.randn(count, 3, generator=generator)
        return Fresh(latents[:, :1, None, None].clone(), latents)

    bank = PersistentBank.filled(source, 20, torch.float32)
    first = bank.states.whole().clone()
    for _ in range(30):
        slots = bank.draw(8, generator)
        restarted = bank.due(slots, 0.3, 0, generator)
        bank.put(slots, bank.starts(slots, source(int(restarted.sum())), restarted), restarted)
    state = bank.state_dict()
    assert torch.equal(state["states"].flatten(), state["latents"][:, 0])
    assert (state["states"] != first).float().mean() > 0.9
    assert len(set(bank.ages.tolist())) > 3


def numbers() -> Source:
    """Starts that count on from 0."""
    images = iter(torch.arange(1000.0).view(-1, 1, 1, 1))
    return lambda count: Fresh(torch.stack([next(images) for _ in range(count)]))


@pytest.mark.parametrize("size", [5, FILLED_AT_ONCE, 2 * FILLED_AT_ONCE + 21])
def test_a_bank_is_of_exactly_the_size_asked_for(size: int) -> None:
    bank = PersistentBank.filled(numbers(), size, torch.float32)
    assert torch.equal(bank.states.whole().flatten(), torch.arange(float(size)))
    assert bank.ages.shape == (size,)


def test_shares_of_a_bank_are_disjoint_and_make_the_whole() -> None:
    """Three processes that fill a bank from the same source hold its thirds, in order."""

    def share(rank: int) -> Tensor:
        return PersistentBank.filled(numbers(), 200, torch.float32, World(rank, 3)).states.held

    assert torch.equal(torch.cat([share(rank) for rank in range(3)]).flatten(), torch.arange(200.0))


def test_state_survives_a_checkpoint() -> None:
    bank = numbered_bank(5)
    bank.ages[2] = 3
    other = PersistentBank.restored(bank.state_dict(), torch.device("cpu"), torch.float32)
    assert torch.equal(content(other), content(bank))
    assert torch.equal(other.ages, bank.ages)
    bank.put(torch.tensor([0]), fresh(1), torch.tensor([False]))
    assert content(other)[0] == 0.0, "the restored bank shares memory"


def test_drawing_more_than_there_is_names_both_counts() -> None:
    with pytest.raises(ValueError, match="11 distinct slots from a bank of 10"):
        numbered_bank(10).draw(11, torch.Generator())
