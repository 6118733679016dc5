"""Indicators fire on a defence or an attack that was broken on purpose, and stay silent on sound ones.

Every evaluation here is a real one, of `linear`: an image of class 1 breaks exactly when its margin, in units of |w|_1,
is below twice the budget, 0.063 at 8/255.
"""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from attacks_eval.defence import Defence
from attacks_eval.evaluation import Evaluation
from attacks_eval.evaluator import Evaluator
from attacks_eval.gradients import BPDA, FULL
from attacks_eval.pgd import PGD
from attacks_eval.plans import Plan, PlannedAttack, blind, fixed_randomness, pgd
from attacks_eval.probe import probe_gradients
from attacks_eval.purifiers import AutogradPurifier
from attacks_eval.threat_model import ThreatModel
from models.noise import Noise
from models.streams import Stream
from tests.attacks_eval.searching import SHAPE, linear, noisy_linear, on_levels, plain

TESTED = {
    "noisy-gradient",
    "loss-stuck",
    "unfinished",
    "frozen-survivors",
    "undecided",
    "noise-breaks",
    "rounding-saves",
    "softmax-output",
}
FALL, HOLD = (0.035, 0.04, 0.045, 0.05), (0.09, 0.15, 0.2, 0.3)
EVERYTHING = (*blind(3, 4), pgd("bpda-pgd", 10, 4, BPDA), pgd("full-pgd", 10, 4, FULL), fixed_randomness(10))
BPDA_ALONE = (pgd("bpda-pgd", 10, 2, BPDA),)


def evaluate(
    defence: Defence, attacks: Sequence[PlannedAttack], margins: Sequence[float], budget: float = 8.0
) -> Evaluation:
    """Of images with these margins, on whole levels."""
    plan = Plan(name="indicators", images=len(margins), attacks=tuple(attacks), check_images=1)
    return Evaluator(defence, ThreatModel(budget=budget), plan).run(*on_levels(margins))


def fired(evaluation: Evaluation) -> dict[str, bool | None]:
    return {each.name: each.fired for each in evaluation.indicators}


def white_box(attack: PGD) -> PlannedAttack:
    return PlannedAttack(name="own", title="our own", knowledge="white box", attack=attack)


def quantised(x: Tensor, noise: Noise) -> Tensor:
    return torch.round(x * 20) / 20


def test_a_sound_attack_on_a_sound_random_defence_fires_nothing() -> None:
    evaluation = evaluate(noisy_linear(0.02), EVERYTHING, (*FALL, *HOLD))
    assert evaluation.worst_case.correct == len(HOLD)
    found = fired(evaluation)
    assert {name for name, each in found.items() if each} == set()
    assert {name: found[name] for name in TESTED} == dict.fromkeys(TESTED, False)


@pytest.mark.parametrize(("spread", "noisy"), [(10.0, True), (0.5, False)])
def test_noisy_gradient(spread: float, noisy: bool) -> None:
    """The gradient w (1 + spread n) of one draw: two means of 16 have cosine 1 / (1 + spread^2 / 16)."""
    defence = Defence(AutogradPurifier(lambda x, noise: x * (1 + spread * noise(x))), linear, served_replicates=4)
    probe = probe_gradients(defence, *on_levels(HOLD * 8), Stream(("probe",)))
    assert probe.eot_cosine == pytest.approx(1 / (1 + spread**2 / 16), abs=0.1)
    assert fired(evaluate(defence, (), HOLD))["noisy-gradient"] is noisy


def test_a_vanished_gradient_is_neither_noisy_nor_another_than_bpda() -> None:
    """Nothing can be said about directions: what is wrong has an indicator of its own."""
    found = fired(evaluate(Defence(AutogradPurifier(quantised), linear), BPDA_ALONE, (*FALL, *HOLD)))
    assert (found["zero-gradient"], found["noisy-gradient"], found["bpda-misleads"]) == (True, None, None)


def test_cosines_are_of_the_images_that_have_a_gradient() -> None:
    """Every second image is answered with constants; the others keep a gradient that BPDA and replicates agree on."""

    def half(x: Tensor, noise: Noise) -> Tensor:
        dark = (x.mean((1, 2, 3), keepdim=True) < -0.5).float()
        return x * (1 - dark) + 0.0 * noise(x)

    shown = torch.stack([torch.full(SHAPE, level) for level in (0.1, 0.6, 0.1, 0.6)])
    defence = Defence(AutogradPurifier(half), linear)
    probe = probe_gradients(defence, shown, torch.ones(4, dtype=torch.long), Stream(("probe",)))
    assert (probe.zero, probe.eot_cosine, probe.bpda_cosine) == (0.5, 1.0, 1.0)


def test_loss_stuck_where_the_attack_goes_the_wrong_way() -> None:
    """The purifier inverts the image, so BPDA's identity points uphill."""
    inverted = Defence(AutogradPurifier(lambda x, noise: -x), lambda z: linear(-z))
    evaluation = evaluate(inverted, BPDA_ALONE, FALL)
    assert fired(evaluation)["loss-stuck"]
    assert fired(evaluation)["bpda-misleads"]
    assert evaluation.worst_case.correct == len(FALL)


@pytest.mark.parametrize("attack", [PGD(steps=10, restarts=5, loss="margin"), PGD(steps=10, restarts=5)])
def test_restarts_are_not_taken_for_a_stuck_loss(attack: PGD) -> None:
    """Each restart climbs as the one before did: the last must not be compared with the whole of the first."""
    assert fired(evaluate(noisy_linear(0.02), [white_box(attack)], HOLD))["loss-stuck"] is False


def test_a_small_loss_that_grows_is_not_stuck() -> None:
    """Cross-entropies of 1e-7 become 1e-6 where the classifier is confident."""
    confident = plain(lambda x: x, lambda z: 3 * linear(z).double())
    evaluation = evaluate(confident, [white_box(PGD(steps=10))], (0.18, 0.19, 0.2))
    assert fired(evaluation)["loss-stuck"] is False


@pytest.mark.parametrize(("steps", "late"), [(9, True), (20, False)])
def test_unfinished(steps: int, late: bool) -> None:
    """Steps of 1/255 need 8 of them to break a margin of 0.06, by which 9 steps are nearly spent."""
    attack = PGD(steps=steps, attack_step=1, random_start=False)
    evaluation = evaluate(plain(lambda x: x), [white_box(attack)], (0.06, 0.06))
    assert evaluation.attacks[0].broken_at == [9, 9]
    assert fired(evaluation)["unfinished"] is late


def test_frozen_survivors_where_the_check_has_no_gradient() -> None:
    """BPDA breaks the quantiser on fresh noise; the check with its exact gradient, zero, breaks nothing."""
    attacks = (*BPDA_ALONE, fixed_randomness(10))
    evaluation = evaluate(Defence(AutogradPurifier(quantised), linear), attacks, FALL)
    assert fired(evaluation)["frozen-survivors"]
    assert evaluation.worst_case.correct == 0


def test_undecided_where_single_draws_are_coin_tosses() -> None:
    """Noise of 0.5 in every pixel moves the score by far more than a margin of 0.003; the sound defence's does not."""
    evaluation = evaluate(noisy_linear(0.5), BPDA_ALONE, [0.003] * 6)
    assert fired(evaluation)["undecided"]
    assert evaluation.clean.undecided > 3


def test_noise_breaks_images_that_hardly_hold() -> None:
    evaluation = evaluate(noisy_linear(0.02), blind(3, 4), [0.003] * 6)
    assert fired(evaluation)["noise-breaks"]
    assert evaluation.worst_case.correct == 0


def test_rounding_saves_from_changes_below_one_level() -> None:
    evaluation = evaluate(plain(lambda x: x), BPDA_ALONE, (0.003, 0.004), budget=0.9)
    assert (evaluation.worst_case.correct, evaluation.worst_case_rounded.correct) == (0, 2)
    assert fired(evaluation)["rounding-saves"]


def test_breaks_by_chance_that_go_away_are_not_blamed_on_rounding() -> None:
    """Steps of a whole level: rounding changes no pixel, and judging again undoes open breaks all the same."""
    attack = PGD(steps=30, attack_step=1, random_start=False)
    margins = [0.065 + 0.001 * n for n in range(10)]
    evaluation = evaluate(noisy_linear(0.5), [white_box(attack)], margins)
    assert evaluation.worst_case.correct < evaluation.worst_case_rounded.correct
    assert not any(each.worst.broken and each.worst.decided for each in evaluation.image_results if each.worst)
    assert fired(evaluation)["rounding-saves"] is None


def test_softmax_output() -> None:
    shares = plain(lambda x: x, lambda z: linear(z).softmax(1))
    assert fired(evaluate(shares, (), HOLD))["softmax-output"]
