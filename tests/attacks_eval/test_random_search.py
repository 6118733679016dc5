"""Random points of the ball: where they lie, how they are distributed, and that answers do not steer them."""

import pytest
import torch
from torch import Tensor

from attacks_eval.attack import Answer, Attack
from attacks_eval.random_search import Corners, RandomNoise
from attacks_eval.threat_model import Norm, ThreatModel
from models.streams import Stream

GREY = torch.full((3, 8, 8), 0.5)


def drive(attack: Attack, image: Tensor, threat: ThreatModel, seed: int = 0, broken_above: float = 2.0) -> list[Tensor]:
    """The candidates of a search, up to the first whose mean exceeds `broken_above`; the loss is the mean."""
    candidates = []
    search = attack.search(image, 0, threat, Stream((seed,)))
    try:
        candidate = next(search)
        while True:
            candidates.append(candidate)
            loss = candidate.mean().item()
            if loss > broken_above:
                break
            candidate = search.send(Answer(torch.tensor([-loss, loss]), loss, None))
    except StopIteration:
        pass
    return candidates


@pytest.mark.parametrize("attack", [RandomNoise(queries=40), Corners(queries=40)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("budget", [0.0, 3.0, 200.0])
def test_never_leaves_the_ball_nor_the_unit_range(attack: Attack, norm: Norm, budget: float) -> None:
    image = torch.rand(3, 6, 10, generator=torch.Generator().manual_seed(0))
    threat = ThreatModel(norm=norm, budget=budget)
    candidates = drive(attack, image, threat)
    assert len(candidates) == attack.queries == 40
    for candidate in candidates:
        assert candidate.shape == image.shape
        assert threat.distance(candidate, image) <= threat.radius + 1e-6
        assert 0.0 <= candidate.min() <= candidate.max() <= 1.0


def test_linf_corners_change_every_pixel_by_the_radius_or_to_the_end_of_the_range() -> None:
    threat = ThreatModel(budget=8)
    changes = torch.stack(drive(Corners(queries=200), GREY, threat)) - GREY
    assert torch.allclose(changes.abs(), torch.tensor(threat.radius), atol=1e-6)
    signs = changes.sign()
    assert signs.mean().abs() < 5 / signs.numel() ** 0.5  # five standard deviations of fair coins
    assert signs.mean(0).abs().max() < 5 / 200**0.5
    white = torch.stack(drive(Corners(queries=20), torch.ones_like(GREY), threat))
    assert torch.allclose(white.unique(), torch.tensor([1 - threat.radius, 1.0]))


def test_l2_corners_are_directions_of_full_length() -> None:
    threat = ThreatModel(norm="l2", budget=100)
    changes = torch.stack(drive(Corners(queries=200), GREY, threat)) - GREY
    assert torch.allclose(changes.flatten(1).norm(dim=1), torch.tensor(threat.radius), rtol=1e-5)
    cosines = changes.flatten(1) @ changes.flatten(1).T / threat.radius**2 - torch.eye(200)
    assert cosines.abs().max() < 6 / GREY.numel() ** 0.5


def test_linf_noise_is_uniform_in_the_ball() -> None:
    """Mean 0 and variance radius^2 / 3, and nothing in the outer fiftieth but a fiftieth."""
    threat = ThreatModel(budget=8)
    share = (torch.stack(drive(RandomNoise(queries=200), GREY, threat)) - GREY) / threat.radius
    assert share.mean() == pytest.approx(0.0, abs=0.02)
    assert share.var() == pytest.approx(1 / 3, abs=0.01)
    assert (share.abs() > 0.98).float().mean() == pytest.approx(0.02, abs=0.003)


def test_l2_noise_is_uniform_in_the_ball() -> None:
    """In d dimensions the share of the volume within length r is (r / radius)^d, uniform on [0, 1]: here d = 3."""
    threat = ThreatModel(norm="l2", budget=100)
    image = torch.full((3, 1, 1), 0.5)
    changes = torch.stack(drive(RandomNoise(queries=2000), image, threat)) - image
    volumes = (changes.flatten(1).norm(dim=1) / threat.radius) ** 3
    for level in (0.1, 0.5, 0.9):
        assert (volumes < level).float().mean() == pytest.approx(level, abs=0.04)
    assert changes.mean(0).abs().max() < 0.05 * threat.radius


@pytest.mark.parametrize("attack", [RandomNoise(queries=30), Corners(queries=30)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_stream_decides_the_sequence_and_more_queries_extend_it(attack: RandomNoise | Corners, norm: Norm) -> None:
    threat = ThreatModel(norm=norm)
    first, again, other = (drive(attack, GREY, threat, seed) for seed in (0, 0, 1))
    longer = drive(attack.model_copy(update={"queries": 60}), GREY, threat)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, longer[:30], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert len({candidate.numpy().tobytes() for candidate in longer}) == 60


def test_corners_go_further_than_noise_on_a_linear_loss() -> None:
    """The best of many draws grows with their spread: radius against radius / sqrt(3) per pixel."""
    threat = ThreatModel(budget=8)
    corners, noise = (
        [candidate.mean().item() - 0.5 for candidate in drive(attack, GREY, threat)]
        for attack in (Corners(queries=1000), RandomNoise(queries=1000))
    )
    assert torch.tensor(corners).std() / torch.tensor(noise).std() == pytest.approx(3**0.5, rel=0.1)
    assert max(corners) > max(noise)


def test_a_driver_may_stop_at_the_first_success() -> None:
    everything = drive(Corners(queries=50), GREY, ThreatModel())
    level = sorted(candidate.mean().item() for candidate in everything)[40]
    stopped = drive(Corners(queries=50), GREY, ThreatModel(), broken_above=level)
    assert 0 < len(stopped) < 50
    assert stopped[-1].mean() > level
