"""The driver: refilling, early ends, fresh verdicts, and results that depend on names alone."""

import pytest
import torch

from attacks_eval.attack import Attack
from attacks_eval.defence import Defence
from attacks_eval.errors import DefenceError, QuestionError
from attacks_eval.judge import JudgeConfig
from attacks_eval.pgd import PGD
from attacks_eval.plans import Plan, load_plan
from attacks_eval.protocol import craft, places, run_attack
from attacks_eval.random_search import Corners
from attacks_eval.slots import Outcome, Task
from attacks_eval.threat_model import Linf
from attacks_eval.workers import Workers
from models.bundle import Bundle
from models.config import apply_overrides
from models.data import ImageDataset
from models.pixels import from_uint8, to_unit
from models.streams import Stream
from tests.attacks_eval.searching import SHAPE, WEIGHTS, noisy_linear, plain

STREAM, JUDGE = Stream(("protocol",)), JudgeConfig()
Results = dict[int, tuple[Outcome, torch.Tensor]]


def run(defence: Defence, attack: Attack, tasks: list[Task], threat: float = 8 / 255) -> Results:
    found: Results = {}
    run_attack(
        defence,
        attack,
        tasks,
        Linf(threat),
        STREAM,
        JUDGE,
        lambda task, outcome, image: found.update({task.number: (outcome, image)}),
    )
    return found


@pytest.fixture
def digits(digits_test: ImageDataset) -> list[Task]:
    images = to_unit(from_uint8(digits_test.images[:14])).clamp(0, 1)
    return [Task(row, images[row], int(digits_test.labels[row])) for row in range(14)]


def tasks_with_margins(margins: list[float]) -> list[Task]:
    """Images of class 1 around mid-grey whose score w (2 x - 1) is the margin, in units of |w|_1."""
    scale = float(WEIGHTS.abs().sum()) / float(WEIGHTS.square().sum())
    return [Task(n, ((m * scale * WEIGHTS + 1) / 2).view(SHAPE), 1) for n, m in enumerate(margins)]


def test_robust_accuracy_of_a_linear_classifier_is_the_closed_form() -> None:
    """Broken exactly when the margin is below 2 eps |w|_1, whatever Gaussian noise the purifier adds."""
    reach = 2 * 8 / 255
    margins = [reach * factor for factor in (0.2, 0.6, 0.9, 1.1, 1.5, 3.0)]
    for defence in (plain(lambda x: x), noisy_linear(0.02)):
        found = run(defence, PGD(steps=10, eot=8, loss="margin"), tasks_with_margins(margins))
        assert [found[n][0].broken for n in range(6)] == [True, True, True, False, False, False]


def test_broken_images_leave_and_others_take_their_place() -> None:
    """Far more images than places; each is attacked to its break or to the last step, and asked no more than that."""
    attack = PGD(steps=10, eot=16, loss="margin")
    tasks = tasks_with_margins([0.01 * n for n in range(1, 12)])
    asked: list[int] = []
    found: Results = {}
    run_attack(
        noisy_linear(0.02),
        attack,
        tasks,
        Linf(8 / 255),
        STREAM,
        JUDGE,
        lambda task, outcome, image: found.update({task.number: (outcome, image)}),
        asked.append,
    )
    assert places(attack) == 4
    assert sum(asked) == len(tasks) * attack.queries
    for outcome, _ in found.values():
        assert outcome.queries == (outcome.broken_at or attack.queries)
    assert min(outcome.queries for outcome, _ in found.values()) < attack.queries


@pytest.mark.parametrize("attack", [PGD(steps=6, attack_step=8, eot=4), Corners(queries=3, eot=4)], ids=str)
def test_order_batching_and_workers_change_nothing(digits_bundle: Bundle, digits: list[Task], attack: Attack) -> None:
    defence = Defence.of(digits_bundle.defence, digits_bundle.manifest.presets["fast"])
    whole = run(defence, attack, digits, 40 / 255)
    backwards = run(defence, attack, digits[::-1], 40 / 255)
    apart = {n: pair for part in (digits[:3], digits[3:]) for n, pair in run(defence, attack, part, 40 / 255).items()}
    shared: Results = {}
    with Workers(2, torch.device("cpu")) as workers:
        workers.run_attack(
            defence,
            attack,
            digits,
            Linf(40 / 255),
            STREAM,
            JUDGE,
            lambda task, outcome, image: shared.update({task.number: (outcome, image)}),
            lambda queries: None,
        )
    for other in (backwards, apart, shared):
        assert other.keys() == whole.keys()
        for number, (outcome, image) in whole.items():
            assert other[number][0] == outcome
            assert torch.equal(other[number][1], image)


def test_the_kept_image_is_inside_the_ball_and_its_verdict_is_fresh(digits_bundle: Bundle, digits: list[Task]) -> None:
    defence = Defence.of(digits_bundle.defence, digits_bundle.manifest.presets["fast"])
    found = run(defence, PGD(steps=8, attack_step=10, eot=4), digits, 48 / 255)
    assert any(outcome.broken for outcome, _ in found.values())
    for task in digits:
        outcome, image = found[task.number]
        assert float((image - task.image).abs().max()) <= 48 / 255 + 1e-6
        assert 0 <= float(image.min()) <= float(image.max()) <= 1
        assert outcome.verdict.draws in JUDGE.stages


def test_one_lucky_draw_does_not_end_a_search() -> None:
    """Loud noise and one replicate an answer: many candidates look broken; the judge is asked again all the same."""
    tasks = tasks_with_margins([0.02] * 12)
    found = run(noisy_linear(0.5), PGD(steps=20, attack_step=0.5, eot=1, loss="margin"), tasks)
    assert sum(outcome.broken for outcome, _ in found.values()) >= 10
    assert all(outcome.tries <= 12 for outcome, _ in found.values())


def test_a_candidate_that_is_both_best_and_last_is_judged_once() -> None:
    """Far from the boundary nothing is promising: one verdict each at the end, of the best, which is the last."""
    found = run(plain(lambda x: x), PGD(steps=4, random_start=False, loss="margin"), tasks_with_margins([0.4, 0.5]))
    assert [outcome.tries for outcome, _ in found.values()] == [1, 1]


def test_crafting_finds_the_worst_corner_and_keeps_the_order() -> None:
    tasks = tasks_with_margins([0.3, 0.01, 0.1])[::-1]
    made = craft(plain(lambda x: x), PGD(steps=10, loss="margin"), tasks, Linf(8 / 255), STREAM)
    assert [task.number for task, _ in made] == [0, 1, 2]
    for task, image in made:
        assert torch.allclose(image, task.image - 8 / 255 * WEIGHTS.view(SHAPE).sign(), atol=1e-6)


def test_answers_that_are_not_finite_are_refused() -> None:
    broken = plain(lambda x: x, lambda z: torch.full((len(z), 2), torch.nan))
    with pytest.raises(DefenceError, match="not finite"):
        run(broken, PGD(steps=2), tasks_with_margins([0.1]))
    with pytest.raises(DefenceError, match="not finite"):
        craft(broken, PGD(steps=2), tasks_with_margins([0.1]), Linf(0.1), STREAM)


def test_images_outside_the_unit_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        run(plain(lambda x: x), PGD(steps=2), [Task(0, torch.full(SHAPE, 1.5), 1)])


def test_a_gpu_has_one_worker() -> None:
    with pytest.raises(QuestionError, match="use 1"):
        Workers(2, torch.device("cuda"))


@pytest.mark.parametrize("name", ["smoke", "quick", "compact", "standard", "paper"])
def test_no_plan_shows_bpda_alone(name: str) -> None:
    attacks = [planned.attack for planned in load_plan(name).attacks if planned.knowledge == "white box"]
    kinds = {str(attack.grad) for attack in attacks}
    assert "bpda" in kinds
    assert kinds - {"bpda"}


@pytest.mark.parametrize("name", ["smoke", "quick", "compact", "standard", "paper"])
def test_a_plan_survives_being_written_and_read(name: str) -> None:
    """Attacks keep their kind: an Auto-PGD read back as PGD would be another evaluation under the same name."""
    plan = load_plan(name)
    assert Plan.model_validate(plan.model_dump(mode="json")) == plan
    changed = Plan.model_validate(apply_overrides(plan.model_dump(mode="json"), ["images=3"]))
    assert [type(each.attack) for each in changed.attacks] == [type(each.attack) for each in plan.attacks]


def test_parts_of_a_plan_can_be_skipped_by_name() -> None:
    plan = load_plan("quick").without(["square", "curves"])
    assert "square" not in {each.name for each in plan.attacks}
    assert plan.curves is None
    assert len(plan.attacks) == len(load_plan("quick").attacks) - 1
    with pytest.raises(QuestionError, match="has no squares to skip; it has noise"):
        load_plan("quick").without(["squares"])


def test_the_paper_s_plan_is_the_paper_s_protocol() -> None:
    """EBM Life Cycle: 50 steps of a quarter of the budget, 48 replicates an answer, 128 to verify, 640 images."""
    plan = load_plan("paper")
    attack = plan.attacks[0].attack
    assert isinstance(attack, PGD)
    assert (attack.steps, attack.attack_step, attack.eot, str(attack.grad)) == (50, None, 48, "bpda")
    assert (plan.judge.stages, plan.images) == ((128,), 640)


def test_unknown_plans_are_refused_by_name() -> None:
    with pytest.raises(QuestionError, match="smoke, quick, compact, standard, paper"):
        load_plan("fast")
