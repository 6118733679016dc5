"""Square Attack against linear classifiers, whose worst image is known on paper, noisy ones, and torchattacks."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchattacks
from torch import Tensor

from attacks_eval.attack import Answer, Attack
from attacks_eval.losses import attack_loss
from attacks_eval.random_search import Corners
from attacks_eval.square import HALVINGS, Square
from attacks_eval.threat_model import Norm, ThreatModel
from models.bundle import Bundle
from models.data import ImageDataset
from models.pixels import from_uint8, from_unit, to_unit
from models.streams import Stream

Classify = Callable[[Tensor], Tensor]
SHAPE = (3, 6, 10)  # not square: a swapped height and width would show


def random(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def linear(seed: int, classes: int, shape: tuple[int, ...] = SHAPE) -> tuple[Classify, Tensor]:
    """A linear classifier and its weights [K, C, H, W]."""
    weights = random(seed, classes, *shape) - 0.5
    return (lambda x: x.flatten(1) @ weights.flatten(1).T), weights


def flat(x: Tensor) -> Tensor:
    """Always right for label 0, with the same loss everywhere."""
    return torch.tensor([1.0, 0.0]).expand(len(x), 2)


def trace(
    attack: Attack,
    classify: Classify,
    image: Tensor,
    threat: ThreatModel,
    noise: Callable[[], float] = lambda: 0.0,
    seed: int = 0,
) -> tuple[list[Tensor], list[float]]:
    """Every candidate of a search for an image of label 0, and its loss before the noise was added."""
    candidates, losses = [], []
    search = attack.search(image, 0, threat, Stream((seed,)))
    try:
        candidate = next(search)
        while True:
            logits = classify(candidate[None])
            loss = attack_loss(attack.loss, logits, torch.tensor([0])).item()
            candidates.append(candidate)
            losses.append(loss)
            candidate = search.send(Answer(logits[0], loss + noise(), None))
    except StopIteration:
        pass
    return candidates, losses


def broken_by(attack: Attack, classify: Classify, images: Tensor, labels: Tensor, threat: ThreatModel) -> list[bool]:
    """Whether each image's search found a misclassified candidate; the searches' questions share batches."""
    searches = [
        attack.search(image, int(label), threat, Stream((index,)))
        for index, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    asking = {index: next(search) for index, search in enumerate(searches)}
    broken = [False] * len(searches)
    while asking:
        chosen = list(asking)
        logits = classify(torch.stack([asking[index] for index in chosen]))
        losses = attack_loss(attack.loss, logits, labels[chosen]).tolist()
        for index, row, loss in zip(chosen, logits, losses, strict=True):
            broken[index] = bool(row.argmax() != labels[index])
            try:
                asking[index] = searches[index].send(Answer(row, loss, None))
            except StopIteration:
                del asking[index]
            if broken[index]:
                asking.pop(index, None)
    return broken


def distinct(candidates: list[Tensor]) -> list[bytes]:
    """The candidates in order, each once."""
    return list(dict.fromkeys(candidate.numpy().tobytes() for candidate in candidates))


@pytest.mark.parametrize("classes", [2, 3])
def test_linf_reaches_the_best_corner_of_a_linear_classifier_and_never_beats_it(classes: int) -> None:
    classify, weights = linear(0, classes)
    image, threat = random(1, *SHAPE) * 0.5 + 0.25, ThreatModel(budget=8)
    towards = weights[1:] - weights[0]
    best = (towards * (image + threat.radius * towards.sign())).flatten(1).sum(1).max().item()
    start = (towards * image).flatten(1).sum(1).max().item()
    for remeasure in (0, 20):
        _, losses = trace(Square(max_queries=2500, remeasure=remeasure), classify, image, threat)
        assert start + 0.97 * (best - start) < max(losses) < best + 1e-4


def test_l2_climbs_far_above_random_directions_and_never_beats_the_best_one() -> None:
    """On smooth weights, as an image's are; the best point is radius * weights / |weights| from the image."""
    wave = torch.linspace(0, 9, 16).sin()[:, None] * torch.linspace(1, 8, 16).cos()
    weights = wave.expand(3, 16, 16)
    image, threat = torch.full_like(weights, 0.5), ThreatModel(norm="l2", budget=255)

    def classify(x: Tensor) -> Tensor:
        score = ((x - 0.5) * weights).sum((1, 2, 3))
        return torch.stack([torch.zeros_like(score), score], dim=1)

    best = threat.radius * torch.linalg.vector_norm(weights).item()
    _, losses = trace(Square(max_queries=1000, remeasure=0), classify, image, threat)
    _, at_random = trace(Corners(queries=1000), classify, image, threat)
    assert 3 * max(at_random) < max(losses)
    assert 0.45 * best < max(losses) < best + 1e-4


def test_l2_spends_the_whole_length_where_nothing_is_clipped() -> None:
    image, threat = torch.full(SHAPE, 0.5), ThreatModel(norm="l2", budget=100)
    candidates, _ = trace(Square(max_queries=100), linear(0, 2)[0], image, threat)
    lengths = torch.stack([threat.distance(candidate, image) for candidate in candidates])
    assert torch.allclose(lengths, torch.tensor(threat.radius), rtol=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("budget", [0.0, 3.0, 200.0])
@pytest.mark.parametrize("shape", [SHAPE, (1, 2, 2), (3, 1, 1)])
def test_never_leaves_the_ball_nor_the_unit_range(norm: Norm, budget: float, shape: tuple[int, ...]) -> None:
    classify, _ = linear(2, 3, shape)
    image, threat = random(3, *shape), ThreatModel(norm=norm, budget=budget)
    before = image.clone()
    candidates, _ = trace(Square(max_queries=150), classify, image, threat)
    assert len(candidates) == 150
    for candidate in candidates:
        assert candidate.shape == shape
        assert threat.distance(candidate, image) <= threat.radius + 1e-6
        assert 0.0 <= candidate.min() <= candidate.max() <= 1.0
    assert torch.equal(image, before)


def test_linf_starts_with_vertical_stripes() -> None:
    threat = ThreatModel(budget=8)
    (start,), _ = trace(Square(max_queries=1), flat, torch.full((3, 16, 16), 0.5), threat)
    change = start - 0.5
    assert torch.allclose(change.abs(), torch.tensor(threat.radius), atol=1e-6)
    assert torch.equal(change, change[:, :1].expand_as(change))
    assert change[:, 0].unique(dim=1).shape[1] > 1


def test_l2_starts_with_a_grid_of_bumps_of_either_orientation() -> None:
    """5 x 5 tiles, equally long, each the same bump up to its sign and a transposition."""
    threat = ThreatModel(norm="l2", budget=100)
    (start,), _ = trace(Square(max_queries=1), flat, torch.full((3, 25, 25), 0.5), threat)
    tiles = (start - 0.5).unfold(1, 5, 5).unfold(2, 5, 5).reshape(-1, 5, 5)
    cosines = (tiles * tiles[0]).sum((1, 2)) / (threat.radius**2 / 75)
    turned = (tiles * tiles[0].T).sum((1, 2)) / (threat.radius**2 / 75)
    alike, transposed = ((cosine.abs() - 1).abs() < 1e-4 for cosine in (cosines, turned))
    assert (alike ^ transposed).all()
    assert alike.any()
    assert transposed.any()
    assert cosines[alike].min() < 0 < cosines[alike].max()


def test_share_follows_the_schedule_scaled_to_the_queries() -> None:
    attack = Square(max_queries=10_000)
    for halvings, at in enumerate(HALVINGS):
        assert attack.share(at - 1) == 0.8 / 2**halvings
        assert attack.share(at) == 0.4 / 2**halvings
    short = Square(max_queries=500, p_init=0.4)
    assert [short.share(proposal) for proposal in (0, 1, 3, 400, 499)] == [0.4, 0.2, 0.1, 0.4 / 512, 0.4 / 512]


def test_linf_windows_have_the_share_of_the_schedule_and_always_change_something() -> None:
    """Where no proposal is accepted, all of them are one window away from the start."""
    attack = Square(max_queries=400, remeasure=0)
    image = torch.full((1, 10, 10), 0.5)
    (start, *candidates), _ = trace(attack, flat, image, ThreatModel(budget=8))
    for proposal, candidate in enumerate(candidates):
        side = max(1, round((100 * attack.share(proposal)) ** 0.5))
        _, rows, columns = (candidate != start).nonzero(as_tuple=True)
        assert 0 <= rows.max() - rows.min() < side
        assert 0 <= columns.max() - columns.min() < side
        window = (candidate - image)[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert len(window.unique()) == 1


def test_l2_proposals_move_length_between_two_windows_and_leave_the_rest() -> None:
    """A proposal longer than the radius would be scaled back, and change every pixel."""
    attack = Square(max_queries=400, remeasure=0)
    image, threat = random(12, 3, 20, 20), ThreatModel(norm="l2", budget=2000)  # some of the length is clipped away
    (start, *candidates), _ = trace(attack, flat, image, threat)
    for proposal, candidate in enumerate(candidates):
        side = max(3, round((400 * attack.share(proposal)) ** 0.5) | 1)
        assert ((candidate - start).abs() > 1e-5).any(0).sum() <= 2 * side**2
    change, before = (candidates[-1] - image).square().sum((1, 2)), (start - image).square().sum((1, 2))
    assert (change > before).all()  # the length lost to clipping is spent again, in each channel


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_a_deterministic_classifier_an_image_asked_again_is_the_best_so_far(norm: Norm) -> None:
    classify, _ = linear(4, 3)
    candidates, losses = trace(
        Square(max_queries=300, remeasure=1), classify, random(5, *SHAPE), ThreatModel(norm=norm)
    )
    seen: set[bytes] = set()
    again = []
    for index, candidate in enumerate(candidates):
        key = candidate.numpy().tobytes()
        if key in seen:
            assert losses[index] == max(losses[: index + 1])
            again.append(losses[index])
        seen.add(key)
    assert len(again) > 100
    assert again == sorted(again)
    assert again[-1] > again[0]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_a_deterministic_classifier_measuring_again_only_costs_queries(norm: Norm) -> None:
    classify, _ = linear(6, 3)
    image, threat = random(7, *SHAPE), ThreatModel(norm=norm)
    plain = distinct(trace(Square(max_queries=200, remeasure=0), classify, image, threat)[0])
    repeating = distinct(trace(Square(max_queries=200, remeasure=5), classify, image, threat)[0])
    assert 100 < len(repeating) < len(plain)
    assert repeating == plain[: len(repeating)]


def test_the_stream_decides_the_sequence() -> None:
    classify, _ = linear(8, 3)
    first, again, other = (
        trace(Square(max_queries=30), classify, random(9, *SHAPE), ThreatModel(), seed=seed)[0] for seed in (0, 0, 1)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("lucky", [{0: 100.0}, {100: 100.0, 101: 100.0}, {0: float("nan")}])
def test_lucky_answers_do_not_freeze_the_search(lucky: dict[int, float]) -> None:
    """Some answers are off: the paper's algorithm never moves again, unless the answer compares with nothing."""
    classify, _ = linear(10, 2)
    image, threat = random(11, *SHAPE), ThreatModel()

    def improvement(remeasure: int, errors: dict[int, float]) -> float:
        noise = (errors.get(query, 0.0) for query in range(400))
        _, losses = trace(Square(max_queries=400, remeasure=remeasure), classify, image, threat, lambda: next(noise))
        return float(np.mean(losses[-20:])) - losses[0]

    honest = improvement(20, {})
    assert improvement(20, lucky) > 0.8 * honest
    assert (improvement(0, lucky) > 0.8 * honest) == any(map(np.isnan, lucky.values()))


def test_measuring_again_beats_not_measuring_again_under_noise() -> None:
    """Gaussian noise of a tenth of the best possible loss; compares the true loss near the end, over 12 images."""
    ends: dict[int, list[float]] = {0: [], 20: []}
    for seed in range(12):
        classify, weights = linear(100 + seed, 2)
        image, threat = random(200 + seed, *SHAPE) * 0.5 + 0.25, ThreatModel(budget=8)
        towards = weights[1] - weights[0]
        clean, best = (towards * image).sum().item(), threat.radius * towards.abs().sum().item()
        for remeasure, end in ends.items():
            rng = np.random.default_rng(seed)
            _, losses = trace(
                Square(max_queries=500, remeasure=remeasure),
                classify,
                image,
                threat,
                lambda rng=rng, best=best: 0.1 * best * rng.standard_normal(),
            )
            end.append((float(np.mean(losses[-100:])) - clean) / best)
    assert np.mean(ends[20]) > np.mean(ends[0]) + 0.05


class EveryWindow(torchattacks.Square):
    """torchattacks never places a window at the last row or column: `random_int` leaves out the end of the range."""

    def random_int(self, low: int = 0, high: int = 1, shape: tuple[int, ...] = (1,)) -> Tensor:
        return super().random_int(low, high + 1, shape)


def digits_accuracies(
    bundle: Bundle, dataset: ImageDataset, kind: type[torchattacks.Square], attack: Square, budget: float
) -> tuple[float, float]:
    """Robust accuracy of the bare classifier on 50 images: torchattacks' and ours."""

    def classify(x: Tensor) -> Tensor:
        with torch.no_grad():
            return bundle.defence.classify(from_unit(x.clamp(0, 1)))

    class Module(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return classify(x)

    images, labels = to_unit(from_uint8(dataset.images[:50])).clamp(0, 1), dataset.labels[:50]
    theirs = kind(Module(), eps=budget / 255, n_queries=attack.max_queries, seed=0)(images, labels)
    broken = broken_by(attack, classify, images, labels, ThreatModel(budget=budget))
    return (classify(theirs).argmax(1) == labels).float().mean().item(), 1 - sum(broken) / len(broken)


@pytest.mark.parametrize(("budget", "queries"), [(24, 200), (24, 500), (40, 200)])
def test_the_papers_algorithm_is_as_strong_as_torchattacks(
    digits_bundle: Bundle, digits_test: ImageDataset, monkeypatch: pytest.MonkeyPatch, budget: float, queries: int
) -> None:
    """Without what is ours (windows drawn again, measuring again) and with all windows allowed to theirs."""
    monkeypatch.setattr("attacks_eval.square.REDRAWS", 1)
    attack = Square(max_queries=queries, remeasure=0)
    theirs, ours = digits_accuracies(digits_bundle, digits_test, EveryWindow, attack, budget)
    assert ours == pytest.approx(theirs, abs=0.12)


def test_is_stronger_than_torchattacks_as_it_ships(digits_bundle: Bundle, digits_test: ImageDataset) -> None:
    """On images of 8 x 8 pixels the windows never placed and the proposals that change nothing cost them much."""
    theirs, ours = digits_accuracies(
        digits_bundle, digits_test, torchattacks.Square, Square(max_queries=200), budget=32
    )
    assert ours < theirs - 0.05
