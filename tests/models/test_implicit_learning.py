"""IGEBM's learning (arXiv 1903.08689) in the one loop: what it comes to, its labels, its checkpoints."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.__main__ import main
from models.bundle import Bundle, load_bundle
from models.data import ImageDataset, load_dataset
from models.errors import CheckpointError, ConfigError
from models.export import export_bundle
from models.networks import ARCHITECTURES, build_network
from models.pixels import dequantise_within, from_uint8, to_uint8
from models.training.objectives import label_loss
from models.training.program import train_recipe
from models.training.recipe import load_recipe
from models.training.run import load_checkpoint, read_metrics
from tests.models.pictures import write_classes
from tests.models.small_networks import SMALL

SMALL_STEPS = [
    "sampler.num_steps=3",
    "network.arguments.stem=4",
    "network.arguments.blocks=[[4, true]]",
    "implicit_run.batch_size=20",
    "implicit_run.bank_size=50",
    "implicit_run.updates=6",
]
CENTRED = [
    "network={ name = 'centred' }",
    "sampler={ num_steps = 5, step_size = 0.5, temperature = 0.25 }",
    "implicit_run={ updates = 90, batch_size = 200, bank_size = 400, penalty = 0.0, adam_betas = [0.9, 0.999], "
    "spread_clip = [9.0, 9.0], learning_rates = [[0, 0.1], [50, 0.02]], average_decay = 0.95, checkpoint_every = 90 }",
]


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, network in SMALL.items():
        monkeypatch.setitem(ARCHITECTURES, name, network)


def train(folder: Path, recipe: str, *overrides: str, resume: bool = False) -> dict[str, Any]:
    train_recipe(load_recipe(recipe, overrides), folder, resume, resume, torch.device("cpu"))
    return load_checkpoint(folder / "checkpoint.pt")


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load_dataset("digits", "train")


@pytest.fixture(scope="module")
def centred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose energy is |x - c[y]|^2 / 2."""
    folder = tmp_path_factory.mktemp("centred")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "centred", SMALL["centred"])
        train(folder, "igebm_digits_conditional", *CENTRED)
    return folder


def class_means(digits: ImageDataset) -> torch.Tensor:
    images = dequantise_within(digits.images, torch.full(digits.images.shape, 0.5))
    return torch.stack([images[digits.labels == label].mean(0) for label in range(10)])


def test_each_class_learns_from_its_own_images_and_chains(centred: Path, digits: ImageDataset) -> None:
    """The likelihood's centres are the class means: of labels that stray, they would be the mean of all."""
    state = load_checkpoint(centred / "checkpoint.pt")
    means, centres = class_means(digits), state["average"]["centres"]
    error = (centres - means).square().mean().sqrt()
    apart = (means - means.mean(0)).square().mean().sqrt()
    assert float(apart) > 0.3
    assert float(error) < 0.1
    bank = state["bank"]
    assert bank["labels"].bincount(minlength=10).min() > 15
    distance = torch.cdist(bank["states"].flatten(1), means.flatten(1))
    assert float((distance.argmin(1) == bank["labels"])[bank["ages"] > 20].float().mean()) > 0.9


def test_a_picture_of_a_conditional_energy_has_a_class_in_each_column(
    centred: Path, tmp_path: Path, digits: ImageDataset
) -> None:
    out = tmp_path / "classes.png"
    command = ["sample", str(centred / "checkpoint.pt"), "--start", "noise", "--steps", "40", "--count", "40"]
    assert main([*command, "--device", "cpu", "--out", str(out)]) == 0
    with Image.open(out) as opened:
        found = np.asarray(opened.convert("L"))[::2, ::2].astype(int)
    columns = np.stack([found[1:-1, 1 + 9 * label : 9 + 9 * label] for label in range(10)])
    rows = np.stack([columns[:, 9 * row : 9 * row + 8] for row in range(4)]).mean(0)
    expected = to_uint8(class_means(digits))[:, 0].numpy()
    distance = np.abs(rows[:, None] - expected[None]).mean((2, 3))
    assert (distance.argmin(1) == np.arange(10)).all()


def test_energies_are_kept_small_and_low_where_the_data_is(tmp_path: Path) -> None:
    """Without chains that move, data and noise are told apart until the penalty holds: f = -1/2a and 1/2a at best."""
    still = "sampler={ num_steps = 1, step_size = 1e-6, temperature = 1.0 }"
    state = train(
        tmp_path,
        "igebm_digits",
        *SMALL_STEPS[1:],
        still,
        "network.arguments.stem=8",
        "implicit_run.updates=150",
        "implicit_run.penalty=2.0",
        "implicit_run.learning_rates=1e-2",
    )
    last = read_metrics(tmp_path)[-10:]
    gap, positive = (np.mean([line[key] for line in last]) for key in ("energy_gap", "energy_positives"))
    assert gap == pytest.approx(-1 / 2, rel=0.2)
    assert positive == pytest.approx(-1 / 4, rel=0.3)
    assert float(state["bank"]["states"].abs().max()) <= 1.001


@pytest.mark.parametrize("recipe", ["igebm_digits", "igebm_digits_conditional"])
def test_a_run_goes_on_as_if_it_had_not_stopped(tmp_path: Path, recipe: str) -> None:
    """With dropout, the term through the chain, and a bank in low precision."""
    more = ["implicit_run.kl_steps=1", "network.arguments.dropout=0.5", "implicit_run.bank_precision=bfloat16"]
    overrides = [*SMALL_STEPS, *more, "implicit_run.checkpoint_every=3"]
    whole = train(tmp_path / "whole", recipe, *overrides)
    train(tmp_path / "parts", recipe, *overrides, "implicit_run.updates=3")
    parts = train(tmp_path / "parts", recipe, *overrides, resume=True)
    lines = [read_metrics(tmp_path / name) for name in ("whole", "parts")]
    assert len(lines[0]) == 6
    for line, other in zip(*lines, strict=True):
        assert {**line, "cpu_seconds": 0} == {**other, "cpu_seconds": 0}
    for key, tensor in whole["network"].items():
        assert torch.equal(tensor, parts["network"][key])
    assert torch.equal(whole["bank"]["states"], parts["bank"]["states"])
    if recipe.endswith("conditional"):
        assert torch.equal(whole["bank"]["labels"], parts["bank"]["labels"])
    group = parts["optimizer"]["param_groups"][0]
    assert group["betas"] == (0.0, 0.999)
    page = (tmp_path / "parts" / "diagnostics.html").read_text()
    assert "The objective keeps both near 0." in page
    assert "mean f(negatives)) at every update" in page


@pytest.mark.parametrize("objective", ["linear", "logsumexp", "softplus"])
def test_the_objectives_and_the_term_through_chains_change_what_is_learned(tmp_path: Path, objective: str) -> None:
    weights = []
    for kl_steps in (0, 3):
        folder = tmp_path / str(kl_steps)
        state = train(
            folder,
            "igebm_digits",
            *SMALL_STEPS,
            f"implicit_run.objective={objective}",
            f"implicit_run.kl_steps={kl_steps}",
            "implicit_run.updates=2",
        )
        weights.append(torch.cat([each.flatten() for each in state["network"].values()]))
        assert all(line["drift_norm"] > 0 for line in read_metrics(folder))
    assert torch.isfinite(torch.stack(weights)).all()
    assert not torch.allclose(*weights, atol=1e-5)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("network.arguments.classes=7", "classes: digits has 10 classes, got 7"),
        ("warm_start.updates=3", "expected 0 for a conditional energy, got 3"),
        (
            "initialiser={ kind = 'frozen_generator', path = 'g' }",
            "'noise' or 'data', .*got 'frozen_g",
        ),
        ("implicit_run.kl_steps=4", "kl_steps 4 of chains of 3 steps"),
        ("implicit_run={ updates = 1, learning_rates = 1, kl_steps = 1, langevin_clip = 2 }", "leave one of them out"),
        ("mid_run={ updates = 1, data_noise = 0, learning_rates = 1, bank_size = 0 }", "got mid_run, implicit_run"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tmp_path, "igebm_digits_conditional", *SMALL_STEPS, override)


def test_an_energy_of_images_alone_has_no_labels_to_tell_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="label_weight: expected 0 for an energy without classes, got 0.5"):
        train(tmp_path, "igebm_digits", *SMALL_STEPS, "implicit_run.label_weight=0.5")


def test_the_label_term_teaches_what_tells_digits_apart(tmp_path: Path) -> None:
    """The same few updates with and without it: only one of them knows held digits by their lowest energy."""
    digits = load_dataset("digits", "test")
    network_section = "network={ name = 'vector', arguments = { size = 64, widths = [32], classes = 10 } }"
    losses = []
    for weight in (0, 1):
        overrides = (network_section, "sampler.num_steps=2", "implicit_run.updates=100", "implicit_run.log_every=100")
        overrides += (f"implicit_run.label_weight={weight}", "implicit_run.learning_rates=0.01")
        state = train(tmp_path / str(weight), "igebm_digits_conditional", *overrides)
        recipe = json.loads((tmp_path / str(weight) / "recipe.json").read_text())
        assert ("label_weight" in recipe["implicit_run"]) == bool(weight), (
            "what is 0 is not written"
        )  # runs from before it resume
        network = build_network(recipe["network"]["name"], recipe["network"]["arguments"])
        network.load_state_dict(state["network"])
        with torch.no_grad():
            losses.append(
                float(label_loss(network.eval(), from_uint8(digits.images), digits.labels, 10, 1.0, len(digits)))
            )
    assert losses[0] == pytest.approx(math.log(10), abs=0.1)
    assert losses[1] < 0.8 * losses[0]


def test_streams_have_no_labels_to_learn_from(tmp_path: Path) -> None:
    pictures = write_classes(tmp_path / "pictures", {"a": 40, "b": 40})
    data = f"data={{ name = 'folder', folder = '{pictures}', side = 8, channels = 1, streaming = true }}"
    with pytest.raises(ConfigError, match="streams of folder train have none"):
        train(tmp_path / "run", "igebm_digits_conditional", *SMALL_STEPS, data, "network.arguments.classes=2")


def test_an_energy_of_images_alone_is_exported_and_one_with_labels_is_not(
    tmp_path: Path, digits_bundle: Bundle, centred: Path
) -> None:
    train(tmp_path / "run", "igebm_digits", *SMALL_STEPS)
    described = tmp_path / "classifier.toml"
    names = [str(number) for number in range(10)]
    described.write_text(f"size = [8, 8]\nclass_names = {names}\n[normalisation]\nmean = [0.0]\nstd = [1.0]\n")
    graph = digits_bundle.folder / "classifier.onnx"
    manifest = export_bundle(tmp_path / "bundle", tmp_path / "run" / "checkpoint.pt", graph, described)
    assert manifest.description.startswith("Implicit-run energy (residual)")
    energy = load_bundle(tmp_path / "bundle", torch.device("cpu")).defence.energy
    weights = load_checkpoint(tmp_path / "run" / "checkpoint.pt")["average"]
    assert all(torch.equal(tensor, weights[key]) for key, tensor in energy.state_dict().items())
    with pytest.raises(CheckpointError, match="is an energy of images with labels"):
        export_bundle(tmp_path / "other", centred / "checkpoint.pt", graph, described)
