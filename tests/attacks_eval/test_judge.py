"""The judge: sequential verdicts and their statistics, on a defence whose probabilities are known."""

import pytest
import torch
from pydantic import ValidationError

from attacks_eval.judge import JudgeConfig, judge
from models.streams import Stream
from tests.attacks_eval.searching import SHAPE, WEIGHTS, linear, noisy_linear, plain

CONFIG = JudgeConfig()
NOISE = 0.25


def image_with_margin(margin: float) -> torch.Tensor:
    """An image in [0, 1] whose score w z, z = 2 x - 1, is `margin`."""
    z = margin * WEIGHTS / WEIGHTS.square().sum()
    return ((z + 1) / 2).view(SHAPE)


def streams(count: int, name: str = "judge") -> list[Stream]:
    return [Stream((name, row)) for row in range(count)]


def test_clear_images_need_one_look_and_close_calls_all_of_them() -> None:
    """With noise s, one draw is right with probability Phi(margin / (s |w|))."""
    spread = NOISE * float(WEIGHTS.norm())
    images = torch.stack([image_with_margin(m * spread) for m in (4.0, -4.0, 0.0)])
    clear, lost, even = judge(noisy_linear(NOISE), images, torch.ones(3, dtype=torch.long), streams(3), CONFIG)
    assert (clear.draws, clear.right, clear.decided, clear.broken, clear.ten) == (10, True, True, False, True)
    assert (lost.draws, lost.right, lost.decided, lost.broken, lost.ten) == (10, False, True, True, False)
    assert even.draws == 128
    assert clear.served == 1.0
    assert lost.label == 0


def test_wrong_decisions_about_close_calls_stay_within_the_error() -> None:
    """Draws right with probability 0.6 exactly: deciding `wrong` is an error, allowed 5 % of the time at most."""
    spread = NOISE * float(WEIGHTS.norm())
    images = image_with_margin(0.2533 * spread).expand(300, *SHAPE)
    verdicts = judge(noisy_linear(NOISE), images, torch.ones(300, dtype=torch.long), streams(300), CONFIG)
    assert sum(verdict.broken for verdict in verdicts) <= 0.05 * 300
    share = sum(verdict.correct for verdict in verdicts) / sum(verdict.draws for verdict in verdicts)
    assert 0.55 < share < 0.65
    assert sum(verdict.decided for verdict in verdicts) > 100


def test_verdicts_depend_on_neither_batch_nor_order() -> None:
    spread = NOISE * float(WEIGHTS.norm())
    images = torch.stack([image_with_margin(m * spread) for m in (0.3, 2.0, -0.2, 0.0, 1.0)])
    labels, names = torch.tensor([1, 1, 1, 0, 1]), streams(5)
    together = judge(noisy_linear(NOISE), images, labels, names, CONFIG)
    for row in reversed(range(5)):
        alone = judge(noisy_linear(NOISE), images[row : row + 1], labels[row : row + 1], names[row : row + 1], CONFIG)
        assert alone == [together[row]]


def test_a_deterministic_defence_needs_one_draw() -> None:
    defence = plain(lambda x: x)
    defence.frozen = True
    image = image_with_margin(1.0)
    (verdict,) = judge(defence, image[None], torch.tensor([1]), streams(1), CONFIG)
    assert (verdict.draws, verdict.correct, verdict.decided, verdict.right) == (1, 1, True, True)
    assert verdict.margin == pytest.approx(float(linear(2 * image[None] - 1)[0, 1]), abs=1e-3)


def test_a_defence_that_may_refuse_is_only_beaten_by_an_answer_that_is_wrong() -> None:
    """The gap of a linear score's two logits is its size; below the limit nothing is answered, right or wrong."""
    defence = plain(lambda x: x)
    defence.frozen = True
    images = torch.stack([image_with_margin(m) for m in (1.0, 0.2, -0.2, -1.0)])
    gaps = linear(2 * images - 1)[:, 1].abs()
    config = JudgeConfig(refuse_below=float(gaps.mean()))
    verdicts = judge(defence, images, torch.ones(4, dtype=torch.long), streams(4), config)
    assert [(v.right, v.refused) for v in verdicts] == [(True, False), (True, True), (True, True), (False, False)]
    always = judge(defence, images, torch.ones(4, dtype=torch.long), streams(4), CONFIG)
    assert [(v.right, v.refused) for v in always] == [(True, False), (True, False), (False, False), (False, False)]
    # A ledger from before there was refusing reads and writes as it did.
    assert "refused" not in always[0].model_dump()
    assert "refuse_below" not in CONFIG.model_dump()


def test_vote_and_mean_logit_can_differ() -> None:
    """One draw in eight is wrong by a wide margin: the vote is right, the mean logits are not."""

    def skewed(z: torch.Tensor) -> torch.Tensor:
        lost = z.flatten(1)[:, 0] > 1.15 * NOISE  # Phi(-1.15) = 0.125
        score = torch.where(lost, -100.0, 1.0)
        return torch.stack([torch.zeros_like(score), score], 1)

    defence = noisy_linear(NOISE)
    defence.classify = skewed
    (verdict,) = judge(defence, torch.full((1, *SHAPE), 0.5), torch.tensor([1]), streams(1, "skewed"), CONFIG)
    assert verdict.vote
    assert not verdict.right
    assert not verdict.decided
    assert verdict.draws == 128


@pytest.mark.parametrize("stages", [(), (8, 32), (32, 10), (10, 10)])
def test_stages_that_make_no_sense_are_refused(stages: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match="ascending"):
        JudgeConfig(stages=stages)
