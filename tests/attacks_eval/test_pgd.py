"""PGD against classifiers whose best attack is known on paper."""

import pytest
import torch

from attacks_eval.apgd import APGD, checkpoints
from attacks_eval.attack import Aimed, Answer, Attack
from attacks_eval.losses import UNAIMED, attack_loss
from attacks_eval.pgd import PGD
from attacks_eval.threat_model import L2, Linf, ThreatModel
from models.streams import Stream
from tests.attacks_eval.searching import SHAPE, WEIGHTS, drive, noisy_linear

STREAM = Stream(("pgd",))
IMAGE = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.25
ATTACKS = [PGD(steps=30, attack_step=2), APGD(steps=30, loss="margin"), PGD(steps=20, random_start=False)]


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
@pytest.mark.parametrize("label", [0, 1])
def test_on_a_linear_classifier_the_best_corner_is_found(attack: Attack, label: int) -> None:
    """The worst image of the ball is x + radius * sign(w) (label 0) or x - radius * sign(w) (label 1)."""
    asked = drive(attack, IMAGE, label, Linf(8 / 255), STREAM)
    best = max(asked, key=lambda pair: pair[1])[0]
    direction = (1 if label == 0 else -1) * WEIGHTS.view(SHAPE).sign()
    assert torch.allclose(best, IMAGE + 8 / 255 * direction, atol=1e-6)


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_in_l2_the_best_direction_is_the_weights_own(attack: Attack) -> None:
    threat = L2(0.1)  # small enough that no pixel meets 0 or 1
    best = max(drive(attack, IMAGE, 0, threat, STREAM), key=lambda pair: pair[1])[0]
    expected = IMAGE + 0.1 * (WEIGHTS / WEIGHTS.norm()).view(SHAPE)
    assert float((best - expected).norm()) < 0.2 * 0.1


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
@pytest.mark.parametrize("threat", [Linf(0.0), Linf(3 / 255), Linf(200 / 255), L2(0.5), L2(30.0)], ids=str)
def test_no_candidate_leaves_the_ball_or_the_unit_range(attack: Attack, threat: ThreatModel) -> None:
    for candidate, _ in drive(attack, IMAGE, 0, threat, STREAM):
        assert float(threat.distance(candidate, IMAGE)) <= threat.radius + 1e-6
        assert 0.0 <= float(candidate.min()) <= float(candidate.max()) <= 1.0


@pytest.mark.parametrize("attack", [PGD(steps=3, restarts=2), APGD(steps=3, restarts=2, loss="ce")], ids=repr)
def test_it_asks_as_often_as_it_says_and_restarts_elsewhere(attack: Attack) -> None:
    asked = [candidate for candidate, _ in drive(attack, IMAGE, 0, Linf(0.1), STREAM)]
    assert len(asked) == attack.queries == 8
    assert not torch.equal(asked[0], asked[4])
    again = [candidate for candidate, _ in drive(attack, IMAGE, 0, Linf(0.1), STREAM)]
    assert all(torch.equal(a, b) for a, b in zip(asked, again, strict=True))
    other = drive(attack, IMAGE, 0, Linf(0.1), Stream(("other",)))
    assert not torch.equal(asked[0], other[0][0])


def test_apgd_examines_progress_at_the_paper_s_fractions() -> None:
    """w_j = ceil(p_j N) with p = 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99."""
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]


def test_apgd_halves_its_step_where_a_fixed_step_oscillates() -> None:
    """Its first step is twice the radius; only smaller ones can come so near to the optimum of a linear loss in L2."""
    losses = [loss for _, loss in drive(APGD(steps=50, loss="margin"), IMAGE, 0, L2(0.1), STREAM)]
    optimum = float(2 * (WEIGHTS.view(SHAPE) * IMAGE).sum() - WEIGHTS.sum() + 2 * 0.1 * WEIGHTS.norm())
    assert optimum - max(losses) < 1e-3 * abs(optimum)


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    search = PGD(steps=2, random_start=False).search(IMAGE, 0, Linf(0.1), STREAM)
    start = next(search)
    moved = search.send(Answer(torch.zeros(2), 0.0, torch.full(SHAPE, torch.nan)))
    assert torch.equal(moved, start)


def test_the_random_defence_s_mean_is_what_is_climbed() -> None:
    """EOT through additive noise: the mean gradient of a linear classifier is 2 w, whatever the noise."""
    defence = noisy_linear(1.0)
    streams, labels = [Stream((row,)) for row in range(2)], torch.tensor([0, 1])
    images = IMAGE.expand(2, -1, -1, -1)
    mode = PGD().grad
    _, _, gradients = defence.attack_gradient(images, labels, streams, 8, mode, "margin")
    assert torch.allclose(gradients[0], 2 * WEIGHTS.view(SHAPE), atol=1e-5)
    assert torch.allclose(gradients[1], -2 * WEIGHTS.view(SHAPE), atol=1e-5)


def test_aimed_climbs_end_where_each_target_wins() -> None:
    """Linear logits W x: the best corner towards class t is x + radius * sign(w_t - w_y), nearest rivals first."""
    rows = torch.randn(4, 48, generator=torch.Generator().manual_seed(2))
    attack, radius = APGD(steps=30, loss="margin", targets=2), 8 / 255
    search = attack.search(IMAGE, 0, Linf(radius), STREAM)
    question, best, asked = next(search), dict[int, tuple[float, torch.Tensor]](), 0
    ranked = (rows @ IMAGE.flatten())[1:].argsort(descending=True) + 1
    while True:
        aimed = isinstance(question, Aimed)
        image, target = question if aimed else (question, UNAIMED)
        x = image.clone().requires_grad_(True)
        logits = (rows @ x.flatten())[None]
        loss = attack_loss(attack.loss, logits, torch.tensor([0]), torch.tensor([target]))[0]
        assert aimed == (asked > 0)
        (gradient,) = torch.autograd.grad(loss, x)
        loss = loss.detach()
        if aimed and float(loss) > best.get(target, (-torch.inf, x))[0]:
            best[target] = float(loss), image.detach()
        asked += 1
        try:
            question = search.send(Answer(logits[0].detach(), float(loss), gradient))
        except StopIteration:
            break
    assert asked == attack.queries == 2 * 31 + 1
    assert list(best) == ranked[:2].tolist()
    for target, (_, image) in best.items():
        corner = IMAGE + radius * (rows[target] - rows[0]).view(SHAPE).sign()
        assert torch.allclose(image, corner, atol=1e-6)


def test_images_with_and_without_a_target_have_losses_of_their_own() -> None:
    logits, labels = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]]), torch.tensor([0, 0])
    losses = attack_loss("margin", logits, labels, torch.tensor([1, UNAIMED]))
    assert losses.tolist() == [-2.0, -1.0]
    with pytest.raises(ValueError, match="targets need loss margin, got dlr"):
        APGD(targets=3)
