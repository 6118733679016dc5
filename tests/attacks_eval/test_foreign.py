"""Other libraries' attacks: the same as ours where both are deterministic; reproducible and contained everywhere."""

import importlib.util
import random
import sys
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pytest
import torch
import torchattacks
from torch import Tensor

from attacks_eval.apgd import APGD
from attacks_eval.attack import Answer, Attack
from attacks_eval.defence import Defence
from attacks_eval.errors import QuestionError
from attacks_eval.foreign import parse_foreign
from attacks_eval.gradients import BPDA, GradMode
from attacks_eval.judge import JudgeConfig, judge
from attacks_eval.pgd import PGD
from attacks_eval.protocol import craft, run_attack
from attacks_eval.purifiers import NoPurifier
from attacks_eval.slots import Task
from attacks_eval.square import Square
from attacks_eval.threat_model import ThreatModel
from models.bundle import Bundle
from models.data import ImageDataset
from models.pixels import from_uint8, to_unit
from models.streams import Stream

Made = Sequence[tuple[Task, Tensor]]


@pytest.fixture(scope="module")
def fast(digits_bundle: Bundle) -> Defence:
    return Defence.of(digits_bundle.defence, digits_bundle.manifest.preset("fast"))


@pytest.fixture(scope="module")
def bare(fast: Defence) -> Defence:
    return fast.bare()


@pytest.fixture(scope="module")
def tasks(digits_test: ImageDataset) -> list[Task]:
    images = to_unit(from_uint8(digits_test.images[:60])).clamp(0, 1)
    return [Task(row, images[row], int(digits_test.labels[row])) for row in range(60)]


def stacked(made: Made) -> Tensor:
    return torch.stack([image for _, image in made])


def right(defence: Defence, made: Made) -> list[bool]:
    """Whether the defence is right about each image, on noise that no attack has seen."""
    labels = torch.tensor([task.label for task, _ in made])
    streams = [Stream(("fresh", task.number)) for task, _ in made]
    return [each.right for each in judge(defence, stacked(made), labels, streams, JudgeConfig(stages=(32,)))]


def surviving(defence: Defence, attack: Attack, tasks: list[Task], threat: ThreatModel) -> int:
    """How many images our own attack leaves right."""
    kept: list[bool] = []
    run_attack(
        defence,
        attack,
        tasks,
        threat,
        Stream((0,)),
        JudgeConfig(),
        lambda _, outcome, __: kept.append(outcome.verdict.right),
    )
    return sum(kept)


def test_pgd_without_a_random_start_is_our_pgd(bare: Defence, tasks: list[Task]) -> None:
    threat, few = ThreatModel(budget=40), tasks[:20]
    theirs = list(parse_foreign("torchattacks:PGD,alpha=5/255,steps=7,random_start=false").craft(bare, few, threat, 0))
    seen = iterates(bare, PGD(steps=7, attack_step=5, random_start=False), few, threat)
    assert [task for task, _ in theirs] == few
    for task, image in theirs:
        # Theirs is the last iterate, whether it is the best or not.
        assert torch.allclose(image, seen[task.number][-1], atol=1e-5)


def iterates(defence: Defence, attack: PGD, tasks: list[Task], threat: ThreatModel) -> dict[int, list[Tensor]]:
    """Every candidate of our search for each task."""
    seen: dict[int, list[Tensor]] = {}
    for task in tasks:
        search = attack.search(task.image, task.label, threat, Stream((0,)))
        candidates = seen.setdefault(task.number, [next(search)])
        with suppress(StopIteration):
            while True:
                label = torch.tensor([task.label])
                asked = defence.attack_gradient(candidates[-1][None], label, [Stream((0,))], 1, BPDA, attack.loss)
                logits, losses, gradients = (each[0] for each in asked)
                candidates.append(search.send(Answer(logits, float(losses), gradients)))
    return seen


def test_eot_changes_nothing_on_a_deterministic_defence(bare: Defence, tasks: list[Task]) -> None:
    threat, given = ThreatModel(budget=40), "alpha=8/255,steps=5,random_start=false"
    plain = list(parse_foreign(f"torchattacks:PGD,{given}").craft(bare, tasks, threat, 0))
    averaged = list(parse_foreign(f"torchattacks:EOTPGD,{given},eot_iter=3").craft(bare, tasks, threat, 0))
    assert torch.allclose(stacked(plain), stacked(averaged), atol=1e-6)


@pytest.mark.parametrize(("budget", "loss"), [(40, "ce"), (40, "dlr"), (25, "ce"), (25, "dlr")])
def test_apgd_is_as_strong_as_ours(bare: Defence, tasks: list[Task], budget: int, loss: str) -> None:
    """At 25/255 about half of the images survive either, so a weaker one would show."""
    threat = ThreatModel(budget=budget)
    theirs = sum(
        right(bare, list(parse_foreign(f"torchattacks:APGD,steps=20,loss={loss}").craft(bare, tasks, threat, 0)))
    )
    ours = surviving(bare, APGD.model_validate({"steps": 20, "loss": loss}), tasks, threat)
    assert abs(ours - theirs) <= 4
    assert ours < 0.65 * len(tasks)


def test_square_is_no_stronger_than_ours(bare: Defence, tasks: list[Task]) -> None:
    """Theirs never puts a small window on an image's last row or column: a handicap on 8 x 8 pixels."""
    threat = ThreatModel(budget=40)
    made = list(parse_foreign("torchattacks:Square,n_queries=100").craft(bare, tasks, threat, 0))
    ours = surviving(bare, Square(max_queries=100, remeasure=0), tasks, threat)
    assert ours <= sum(right(bare, made)) + 3
    assert sum(right(bare, made)) < 40


@pytest.mark.skipif(importlib.util.find_spec("pyautoattack") is None, reason="pyautoattack is not installed")
@pytest.mark.parametrize(("name", "loss"), [("apgd-ce", "ce"), ("apgd-dlr", "dlr")])
def test_pyautoattack_is_as_strong_as_torchattacks(bare: Defence, tasks: list[Task], name: str, loss: str) -> None:
    threat = ThreatModel(budget=25)
    original = list(parse_foreign(f"pyautoattack:{name},n_iter=20").craft(bare, tasks, threat, 0))
    port = list(parse_foreign(f"torchattacks:APGD,steps=20,loss={loss}").craft(bare, tasks, threat, 0))
    assert abs(sum(right(bare, original)) - sum(right(bare, port))) <= 4


@pytest.mark.parametrize("mode", ["bpda", "full", "smooth:3"])
def test_the_modules_gradient_is_the_defences(fast: Defence, tasks: list[Task], mode: str) -> None:
    images, labels = torch.stack([task.image for task in tasks[:6]]), torch.tensor([task.label for task in tasks[:6]])
    # The documented stream of a module's first call.
    streams = [Stream((7, "module", 1, row)) for row in range(6)]
    logits, _, expected = fast.attack_gradient(images, labels, streams, 3, GradMode.model_validate(mode), "ce")
    leaf = images.clone().requires_grad_(True)
    module = fast.as_module(mode, replicates=3, seed=7)
    answer = module(leaf)
    (found,) = torch.autograd.grad(torch.nn.functional.cross_entropy(answer, labels, reduction="sum"), leaf)
    assert torch.equal(answer, logits)
    assert torch.equal(found, expected)
    assert expected.abs().sum() > 0
    assert not torch.equal(module(images), logits), "the next call draws fresh noise"


def test_a_langevin_defence_is_attacked_unchanged_and_breaks_more_than_by_transfer(
    fast: Defence, bare: Defence, tasks: list[Task]
) -> None:
    """Measured on 24 digits at 60/255: 12 survive the transfer, 5 the white-box attack."""
    threat, few = ThreatModel(budget=60), tasks[:24]
    transferred = craft(bare, PGD(steps=10, attack_step=12), few, threat, Stream((0,)))
    images, labels = torch.stack([task.image for task in few]), torch.tensor([task.label for task in few])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        attack = torchattacks.PGD(fast.as_module(), eps=60 / 255, alpha=12 / 255, steps=10)
        white = list(zip(few, attack(images, labels), strict=True))
    assert sum(right(fast, white)) <= sum(right(fast, transferred)) - 3


def test_a_run_is_reproducible_by_seed_and_touches_no_global_state(fast: Defence, tasks: list[Task]) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    for spec in ("PGD,steps=2", "APGD,steps=2", "Pixle,restarts=1"):
        attack = parse_foreign(f"torchattacks:{spec},replicates=2")
        first, again, other = (stacked(list(attack.craft(fast, tasks[:2], ThreatModel(), seed))) for seed in (0, 0, 1))
        assert torch.equal(first, again), spec
        # APGD returns the clean image where it breaks nothing.
        assert "APGD" in spec or not torch.equal(first, other), spec
    with pytest.raises(QuestionError, match="fails on this defence"):
        list(parse_foreign("torchattacks:PGDRS").craft(fast, tasks[:4], ThreatModel(), 0))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]


def test_batches_do_not_change_each_other(fast: Defence, tasks: list[Task]) -> None:
    """With 16 replicates a batch holds 4 images."""
    attack = parse_foreign("torchattacks:PGD,steps=2,replicates=16")
    together = list(attack.craft(fast, tasks[:8], ThreatModel(), 0))
    apart = [made for part in (tasks[:4], tasks[4:8]) for made in list(attack.craft(fast, part, ThreatModel(), 0))]
    assert torch.equal(stacked(together), stacked(apart))
    assert [task.number for task, _ in together] == list(range(8))


@pytest.mark.parametrize("threat", [ThreatModel(budget=40), ThreatModel(norm="l2", budget=400)])
@pytest.mark.parametrize("spec", ["GN,std=0.5", "DeepFool", "APGD,steps=5", "FAB,steps=10"])
def test_images_are_inside_the_threat_model(bare: Defence, tasks: list[Task], spec: str, threat: ThreatModel) -> None:
    made = list(parse_foreign(f"torchattacks:{spec}").craft(bare, tasks[:8], threat, 0))
    images, clean = stacked(made), torch.stack([task.image for task, _ in made])
    distances = threat.distance(images, clean)
    assert distances.max() <= threat.radius + 1e-5
    assert distances.max() > threat.radius / 4, "the attack moved nothing"
    assert 0.0 <= images.min() <= images.max() <= 1.0


def test_the_number_of_classes_is_the_defences(tasks: list[Task]) -> None:
    """The library assumes 10 classes, and would aim at some that four logits do not have."""
    weights = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    four = Defence(NoPurifier(), lambda x: x.flatten(1) @ weights.T)
    few = [Task(task.number, task.image, int(four.classify(task.image[None] * 2 - 1).argmax())) for task in tasks[:6]]
    made = list(parse_foreign("torchattacks:APGDT,steps=5").craft(four, few, ThreatModel(budget=60), 0))
    assert sum(right(four, made)) < 3
    with pytest.raises(QuestionError, match="APGDT fails"):
        list(parse_foreign("torchattacks:APGDT,steps=5,n_classes=10").craft(four, few, ThreatModel(budget=1), 0))


def test_values_are_read_as_written() -> None:
    attack = parse_foreign(
        "torchattacks:APGD,eps=8/255,steps=3,rho=0.5,loss=dlr,norm=Linf,verbose=false,grad=smooth:4/2"
    )
    assert attack.arguments == {
        "eps": 8 / 255,
        "steps": 3,
        "rho": 0.5,
        "loss": "dlr",
        "norm": "Linf",
        "verbose": False,
    }
    assert (str(attack.grad), attack.replicates) == ("smooth:4/2", None)
    attack = parse_foreign("torchattacks:Pixle,x_dimensions=[2, 3],replicates=5")
    assert attack.arguments == {"x_dimensions": (2, 3)}
    assert (str(attack.grad), attack.replicates) == ("bpda", 5)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("foolbox:PGD", r"unknown library 'foolbox'; known: torchattacks"),
        ("torchattacks", r"has no attack ''; the nearest: .*\bPGD\b"),
        ("torchattacks:pgd", r"no attack 'pgd'; the nearest: PGD, "),
        ("torchattacks:AutoAtack", r"the nearest: AutoAttack$"),
        ("torchattacks:MultiAttack", "no attack 'MultiAttack'"),
        ("torchattacks:PGD,step=3", "has no argument step; it has eps, alpha, steps, random_start"),
        ("torchattacks:PGD,model=x", "has no argument model"),
        ("torchattacks:PGD,steps=many", "steps must be of the kind of its default 10, got 'many'"),
        ("torchattacks:PGD,random_start=False", "random_start must be .* True, got 'False'"),
        ("torchattacks:PGD,eps=big", "eps must be"),
        ("torchattacks:PGD,eps=8/0", "'8/0' divides by zero"),
        ("torchattacks:PGD,steps", "expected key=value, each key once; got 'steps'"),
        ("torchattacks:PGD,steps=1,steps=2", "each key once; got 'steps=2'"),
        ("torchattacks:PGD,replicates=0", "replicates must be a whole number from 1 on, got 0"),
        ("torchattacks:PGD,grad=exact", "unknown gradient mode 'exact'"),
    ],
)
def test_specifications_that_make_no_sense_are_refused_by_name(spec: str, message: str) -> None:
    with pytest.raises(QuestionError, match=message):
        parse_foreign(spec)


@pytest.mark.parametrize(
    ("spec", "threat", "message"),
    [
        ("PGD,eps=4/255", ThreatModel(), r"eps is 0.0156863, the threat is L-infinity 8/255"),
        ("PGD,eps=0.031", ThreatModel(), r"eps is 0.031, the threat is"),
        ("PGD", ThreatModel(norm="l2", budget=128), "eps is a radius in Linf, the threat is L2"),
        ("PGDL2", ThreatModel(), "eps is a radius in L2, the threat is L-infinity"),
        ("APGD,norm=L2", ThreatModel(), "eps is a radius in L2, the threat is L-infinity"),
        ("NIFGSM", ThreatModel(), r"NIFGSM fails .*expected images in \[0, 1\]"),
        ("TIFGSM", ThreatModel(), "TIFGSM fails .* 3 channels"),
        ("APGD,loss=hinge", ThreatModel(), "APGD fails .*loss=hinge.*unknown loss"),
    ],
)
def test_arguments_that_contradict_the_question_are_refused(
    bare: Defence, tasks: list[Task], spec: str, threat: ThreatModel, message: str
) -> None:
    with pytest.raises(QuestionError, match=message):
        list(parse_foreign(f"torchattacks:{spec}").craft(bare, tasks[:3], threat, 0))


def test_images_outside_the_unit_range_raise(fast: Defence, bare: Defence, tasks: list[Task]) -> None:
    wild = tasks[0].image * 2.0
    for module in (fast.as_module(), bare.as_module()):
        with pytest.raises(ValueError, match=r"expected images in \[0, 1\]"):
            module(wild[None])
    with pytest.raises(ValueError, match=r"expected images in \[0, 1\]"):
        list(parse_foreign("torchattacks:PGD").craft(bare, [Task(0, wild, 0)], ThreatModel(), 0))


@pytest.mark.parametrize("library", ["torchattacks", "pyautoattack"])
def test_a_missing_library_says_how_to_install_it(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(QuestionError, match=f"install it: pip install --no-deps {library}=="):
        parse_foreign(f"{library}:PGD")
