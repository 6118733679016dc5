import pytest
import torch

from models.banks import PersistentBank


def numbered_bank(size: int) -> PersistentBank:
    """Slot i holds the constant i."""
    return PersistentBank(torch.arange(float(size)).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone())


def test_chains_return_to_their_own_slots() -> None:
    bank = numbered_bank(20)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        slots = bank.draw(8, generator)
        assert len(set(slots.tolist())) == 8
        states, restarted = bank.rejuvenate(slots, torch.full((8, 1, 2, 2), -1.0), 0.0, generator)
        assert torch.equal(states[:, 0, 0, 0], slots.float() % 100)
        bank.put(slots, states, restarted)
    assert torch.equal(bank.states[:, 0, 0, 0], torch.arange(20.0))
    assert bank.ages.sum() == 50 * 8


def test_rejuvenation_happens_with_its_probability_and_restarts_age() -> None:
    bank = numbered_bank(1000)
    bank.ages += 7
    generator = torch.Generator().manual_seed(0)
    slots = bank.draw(1000, generator)
    states, restarted = bank.rejuvenate(slots, torch.full((1000, 1, 2, 2), -1.0), 0.2, generator)
    # 200 expected, standard deviation 12.6
    assert 150 < int(restarted.sum()) < 250
    assert torch.equal(states[:, 0, 0, 0] == -1.0, restarted)
    bank.put(slots, states, restarted)
    assert torch.equal(bank.ages[slots], torch.where(restarted, 1, 8))


def test_certain_and_impossible_rejuvenation() -> None:
    bank, generator = numbered_bank(10), torch.Generator().manual_seed(0)
    slots, fresh = bank.draw(10, generator), torch.full((10, 1, 2, 2), -1.0)
    assert bank.rejuvenate(slots, fresh, 1.0, generator)[1].all()
    assert not bank.rejuvenate(slots, fresh, 0.0, generator)[1].any()


def test_ages_follow_the_geometric_law() -> None:
    """With restart probability p at every visit, the stationary mean age is 1 / p."""
    bank, generator = numbered_bank(2000), torch.Generator().manual_seed(0)
    for _ in range(60):
        slots = bank.draw(2000, generator)
        bank.put(slots, *bank.rejuvenate(slots, bank.states[slots], 0.25, generator))
    assert bank.ages.float().mean().item() == pytest.approx(4.0, abs=0.35)


def test_state_survives_a_checkpoint() -> None:
    bank, other = numbered_bank(5), PersistentBank(torch.empty(0))
    bank.ages[2] = 3
    other.load_state_dict(bank.state_dict())
    assert torch.equal(other.states, bank.states)
    assert torch.equal(other.ages, bank.ages)


def test_drawing_more_than_there_is_names_both_counts() -> None:
    with pytest.raises(ValueError, match="11 distinct slots from a bank of 10"):
        numbered_bank(10).draw(11, torch.Generator())
