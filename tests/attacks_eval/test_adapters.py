"""The defence in other libraries' hands: attacked unchanged, and attacked as strongly as its gradients allow."""

import importlib.util
import sys
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torchattacks
from torch import Tensor, nn

from attacks_eval.art_preprocessor import art_preprocessor
from attacks_eval.defence import Defence, DefenceModule
from attacks_eval.errors import QuestionError
from attacks_eval.gradients import GradMode
from attacks_eval.judge import JudgeConfig, judge
from models.bundle import Bundle
from models.data import ImageDataset
from models.pixels import from_uint8, from_unit, to_unit
from models.streams import Stream

EPS = 60 / 255
COUNT = 8


@pytest.fixture(scope="module")
def fast(digits_bundle: Bundle) -> Defence:
    """A few steps of it: enough for every gradient mode to matter, and quick."""
    preset = digits_bundle.manifest.preset("fast").model_copy(update={"num_steps": 6, "settle": None})
    return Defence.of(digits_bundle.defence, preset)


@pytest.fixture(scope="module")
def images(digits_test: ImageDataset) -> Tensor:
    return to_unit(from_uint8(digits_test.images[:COUNT])).clamp(0, 1)


@pytest.fixture(scope="module")
def labels(digits_test: ImageDataset) -> Tensor:
    return digits_test.labels[:COUNT].long()


def optional(name: str) -> ModuleType:
    """The library, whose own imports are deprecated by others; skipped where it is not installed."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def held(defence: Defence, images: Tensor, labels: Tensor) -> int:
    """How many images the defence is right about, on noise that no attack has seen."""
    streams = [Stream(("fresh", row)) for row in range(len(images))]
    return sum(each.right for each in judge(defence, images, labels, streams, JudgeConfig(stages=(32,))))


def check_budget(attacked: Tensor, images: Tensor) -> None:
    assert 0.0 <= attacked.min() <= attacked.max() <= 1.0
    assert EPS / 2 < (attacked - images).abs().max() <= EPS + 1e-6


@pytest.mark.parametrize("grad", ["bpda", "smooth"])
def test_foolbox_breaks_what_it_may_look_through(fast: Defence, images: Tensor, labels: Tensor, grad: str) -> None:
    foolbox = optional("foolbox")
    model = foolbox.PyTorchModel(fast.as_module(grad, replicates=2), bounds=(0, 1))
    attack = foolbox.attacks.LinfPGD(steps=5, rel_stepsize=0.3)
    _, attacked, _ = attack(model, images, labels, epsilons=EPS)
    check_budget(attacked, images)
    assert held(fast, images, labels) == COUNT
    assert held(fast, attacked, labels) <= COUNT // 2


def test_torchattacks_autoattack_runs_unchanged(fast: Defence, images: Tensor, labels: Tensor) -> None:
    attack = torchattacks.AutoAttack(fast.as_module("smooth:3", replicates=2), eps=EPS, version="rand", seed=0)
    for part in attack._autoattack.attacks:
        part.steps, part.eot_iter = 4, 1
    attacked = attack(images[:4], labels[:4])
    check_budget(attacked, images[:4])
    assert held(fast, attacked, labels[:4]) < 4


def test_autoattack_runs_unchanged(fast: Defence, images: Tensor, labels: Tensor) -> None:
    module = fast.with_fixed_randomness().as_module("smooth:3", replicates=1)
    attack = optional("pyautoattack").AutoAttack(
        module, eps=EPS, version="custom", attacks=["apgd-ce", "fab", "square"], seed=0
    )
    attack.apgd.n_restarts, attack.apgd.n_iter = 1, 4
    attack.fab.n_restarts, attack.fab.n_iter, attack.square.n_queries = 1, 1, 5
    attacked = attack.run_standard_evaluation(images[:4], labels[:4])
    attacked = attacked[0] if isinstance(attacked, tuple) else attacked
    check_budget(attacked, images[:4])
    assert held(fast, attacked, labels[:4]) < 4


def art_classifier(model: nn.Module, **arguments: Any) -> Any:
    optional("art")
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        model, loss=nn.CrossEntropyLoss(), input_shape=(1, 8, 8), nb_classes=10, clip_values=(0.0, 1.0), **arguments
    )


class Bare(nn.Module):
    """The classifier of a bundle, of [0, 1] images."""

    def __init__(self, defence: Defence) -> None:
        super().__init__()
        self.defence = defence

    def forward(self, images: Tensor) -> Tensor:
        return self.defence.classify(images * 2 - 1)


@pytest.mark.parametrize("grad", ["bpda", "smooth:5"])
def test_arts_gradient_is_the_defences(fast: Defence, images: Tensor, labels: Tensor, grad: str) -> None:
    optional("art")
    estimator = art_classifier(Bare(fast), preprocessing_defences=art_preprocessor(fast, grad, seed=7))
    found = estimator.loss_gradient(images.numpy(), np.eye(10, dtype=np.float32)[labels])
    mode = GradMode.model_validate(grad)
    # The documented stream of the first call; a mean over the batch is what ART's loss takes.
    named = [Stream((7, "preprocessor", 1, row)) for row in range(COUNT)]
    _, _, expected = fast.attack_gradient(images, labels, named, 1, mode, "ce")
    assert np.allclose(found, expected.numpy() / COUNT, atol=1e-7, rtol=1e-4)
    assert np.abs(found).sum() > 0


def test_art_purifies_before_any_classifier(fast: Defence, images: Tensor, labels: Tensor) -> None:
    optional("art")
    from art.attacks.evasion import ProjectedGradientDescent
    from art.defences.preprocessor.preprocessor import Preprocessor

    bare = art_classifier(Bare(fast))
    attack = ProjectedGradientDescent(bare, eps=EPS, eps_step=EPS / 4, max_iter=6, verbose=False)
    attacked = attack.generate(images.numpy(), labels.numpy())
    assert (bare.predict(attacked).argmax(1) == labels.numpy()).sum() <= 1
    purify = art_preprocessor(fast)
    assert isinstance(purify, Preprocessor)
    purified, same = purify(attacked, labels.numpy())
    assert np.array_equal(same, labels.numpy())
    expected = fast.purified(from_unit(torch.from_numpy(attacked)), Stream((0,)))
    assert np.abs(purified - to_unit(expected).numpy()).mean() < 0.1, "another chain, not another image"
    assert not np.array_equal(purified, purify(attacked)[0]), "the next call draws fresh noise"
    defended = art_classifier(Bare(fast), preprocessing_defences=art_preprocessor(fast))
    assert np.allclose(defended.predict(attacked), Bare(fast)(torch.from_numpy(purified)).numpy(), atol=1e-4)
    with pytest.raises(ValueError, match=r"expected images in \[0, 1\]"):
        purify(attacked * 255)


def test_a_module_is_ready_to_be_asked(fast: Defence, monkeypatch: pytest.MonkeyPatch) -> None:
    module = fast.as_module("smooth")
    assert isinstance(module, DefenceModule)
    assert not module.training, "libraries warn of modules in training"
    monkeypatch.setitem(sys.modules, "art.defences.preprocessor.preprocessor", None)
    with pytest.raises(QuestionError, match=r"pip install -e '\.\[adapters\]'"):
        art_preprocessor(fast)
