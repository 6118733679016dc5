"""The one objective in its regimes: where it comes to rest, what it samples, what its checkpoints bring back."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as save_safetensors

from models.bundle import Bundle
from models.data import ImageDataset, load_dataset
from models.errors import CheckpointError, ConfigError, NetworkError
from models.export import export_bundle
from models.networks import ARCHITECTURES
from models.networks.generator import SNGANGenerator
from models.pixels import from_uint8
from models.training.frozen_parts import starting_generator
from models.training.program import train_recipe
from models.training.recipe import load_recipe
from models.training.run import load_checkpoint, read_metrics
from tests.conftest import ZOO
from tests.models.small_networks import SMALL, SmallGenerator

SHORT = [
    "network.arguments.width=8",
    "sampler.num_steps=3",
    "short_run.bank_size=128",
    "short_run.updates=6",
    "short_run.checkpoint_every=3",
]
GENERATOR = "initialiser.network={ name = 'small_generator', arguments = {} }"
ZOO_PRIOR = (
    f"prior={{ tau = 0.5, energy = '{ZOO}/digits-midrun/energy.safetensors', temperature = 1e-3, network = {{ "
    "name = 'light', arguments = { channels = 1, image_size = 8, width = 32, activation = 'leaky', slope = 0.05 } } }"
)
LONG = [
    "network.arguments.width=8",
    "sampler.num_steps=3",
    "long_run.updates=6",
    "long_run.bank_size=80",
    "long_run.burn_in_size=70",
    "long_run.burn_in_updates=4",
    "initialiser={ kind = 'data' }",
    ZOO_PRIOR,
]


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, network in SMALL.items():
        monkeypatch.setitem(ARCHITECTURES, name, network)


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load_dataset("digits", "train")


def train(folder: Path, recipe: str, *overrides: str, resume: bool = False, amend: bool = False) -> dict[str, Any]:
    train_recipe(load_recipe(recipe, overrides), folder, resume, amend, torch.device("cpu"))
    return load_checkpoint(folder / "checkpoint.pt")


@pytest.mark.parametrize("tau", [None, 0.8])
def test_learning_comes_to_rest_where_the_moments_agree(
    tmp_path: Path, digits: ImageDataset, tau: float | None
) -> None:
    """f = c/2 |x|^2 learns c such that its chains have the data's mean square; a Gaussian term is taken off it."""
    overrides = [
        "network={ name = 'quadratic' }",
        "sampler={ num_steps = 8, step_size = 0.4, temperature = 1.0 }",
        "initialiser={ kind = 'noise' }",
        "short_run={ updates = 120, batch_size = 128, bank_size = 128, rejuvenation_prob = 0.0, data_noise = 0.0, "
        "learning_rates = [[0, 3e-2], [80, 5e-3]], average_decay = 0.9 }",
        *([] if tau is None else [f"prior={{ tau = {tau} }}"]),
    ]
    # digits_short has no prior of its own.
    state = train(tmp_path, "digits_short", *overrides)
    mean_square = float(from_uint8(digits.images).square().mean())
    # The discretised chain's variance is s^2 / (1 - (1 - a)^2), a = s^2 / 2 times the curvature of the potential.
    a = 1 - (1 - 0.4**2 / mean_square) ** 0.5
    curvature = a / (0.4**2 / 2) - (0.0 if tau is None else 1 / tau**2)
    assert state["average"]["curvature"].item() == pytest.approx(curvature, abs=0.06)


@pytest.mark.parametrize("bank_size", [0, 100])
@pytest.mark.parametrize("kind", ["noise", "data", "generator"])
def test_all_six_ways_to_start_chains(tmp_path: Path, digits: ImageDataset, kind: str, bank_size: int) -> None:
    """After one update without rates worth the name, slots that were not drawn hold what their source makes."""
    chains = "{ updates = 1, data_noise = 0.04, learning_rates = 1e-30, bank_size = %d%s }"
    restarts = ", rejuvenation_prob = 0.5" if bank_size else ""
    initialiser = f"initialiser={{ kind = '{kind}' }}"
    if kind == "generator":
        initialiser = (
            "initialiser={ kind = 'generator', network = { name = 'small_generator' }, learning_rates = 1e-30 }"
        )
    state = train(tmp_path, "digits_short", *SHORT[:2], initialiser, "short_run=" + chains % (bank_size, restarts))
    (line,) = read_metrics(tmp_path)
    assert ("generator_loss" in line) == (kind == "generator")
    if bank_size == 0:
        assert state["bank"] == {}
        assert "age" not in line
        return
    untouched = state["bank"]["ages"] == 0
    assert int(untouched.sum()) == 100 - 64
    images = state["bank"]["states"][untouched]
    if kind == "noise":
        assert images.abs().max() <= 1
        assert images.var().item() == pytest.approx(1 / 3, abs=4 * (4 / 45 / images.numel()) ** 0.5)
    elif kind == "data":
        known = {image.numpy().tobytes() for image in from_uint8(digits.images)}
        assert all(image.numpy().tobytes() in known for image in images)
    else:
        network = SmallGenerator()
        network.load_state_dict(state["generator"]["network"])
        network.norm.load_state_dict(SmallGenerator().norm.state_dict())  # the statistics that the bank began with
        latents = state["bank"]["latents"][untouched]
        assert torch.allclose(network.eval()(latents), images, atol=1e-6)


def test_generator_learns_towards_the_ends_of_its_chains(tmp_path: Path) -> None:
    learned = "initialiser.learning_rates=1e-2"
    train(tmp_path, "digits_short", *SHORT[:3], GENERATOR, learned, "short_run.updates=50")
    loss = [line["generator_loss"] for line in read_metrics(tmp_path)]
    assert sum(loss[-5:]) < 0.5 * sum(loss[:5])
    assert {line["age"] <= 2 for line in read_metrics(tmp_path)} == {True}


def test_batch_norm_follows_the_generator_and_the_average_is_what_is_used_later(tmp_path: Path) -> None:
    """Statistics that only the untrained network had set would make evaluation another function than training."""
    state = train(tmp_path, "digits_short", *SHORT[:3], GENERATOR, "short_run.updates=40")
    own = SmallGenerator()
    own.load_state_dict(state["generator"]["network"])
    latents = torch.randn(2000, 4)
    with torch.no_grad():
        evaluated, trained = own.eval()(latents), own.train()(latents)
        untrained = SmallGenerator()
        untrained.load_state_dict(state["generator"]["network"])
        untrained.norm.running_mean.zero_()  # type: ignore[union-attr,operator]
        untrained.norm.running_var.fill_(1.0)  # type: ignore[union-attr,operator]
        stale = untrained.eval()(latents)
    assert (evaluated - trained).square().mean() < 0.25 * (stale - trained).square().mean()
    loaded = starting_generator(tmp_path / "checkpoint.pt")
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, state["generator"]["average"][key])
    assert not torch.equal(loaded.state_dict()["linear.weight"], own.linear.weight)


def test_the_life_cycle_from_short_run_to_long_run(tmp_path: Path) -> None:
    """A generator, a prior that its chains make, an energy that corrects the prior; neither of them changes."""
    train(tmp_path / "short", "digits_short", *SHORT, GENERATOR)
    path = f"initialiser.path={tmp_path}/short/checkpoint.pt"
    prior = train(tmp_path / "prior", "digits_prior", *SHORT, path)
    energy = f"prior.energy={tmp_path}/prior/checkpoint.pt"
    long = train(tmp_path / "long", "digits_long", *LONG[:-2], path, energy)
    assert prior["fixed"].keys() == {"generator"}
    assert long["fixed"].keys() == {"generator", "prior energy"}
    assert long["bank"]["burn_in"]["states"].shape == (70, 1, 8, 8)
    assert long["bank"]["bank"]["states"].shape == (80, 1, 8, 8)
    lines = read_metrics(tmp_path / "long")
    assert sum(line["promotions"] for line in lines) > 0
    assert all({"energy_gap", "drift_norm", "age"} <= line.keys() for line in lines)
    # Another generator under the same name is refused.
    (tmp_path / "short" / "checkpoint.pt").unlink()
    train(tmp_path / "short", "digits_short", *SHORT, GENERATOR, "seed=5", resume=True)
    with pytest.raises(CheckpointError, match=r"the generator has weights .*the run began with"):
        train(tmp_path / "long", "digits_long", *LONG[:-2], path, energy, resume=True)


def test_chains_start_from_a_converted_generator(tmp_path: Path) -> None:
    """The folder's own weights and statistics make the bank's images."""
    torch.manual_seed(0)
    network = SNGANGenerator(channels=1, widths=[4, 4], latent_size=6)
    network(torch.randn(50, 6))  # sets the statistics
    weights = save_safetensors(network.state_dict())
    entry = {"architecture": "sngan_generator", "arguments": {"channels": 1, "widths": [4, 4], "latent_size": 6}}
    folder = tmp_path / "generator"
    folder.mkdir()
    (folder / "generator.safetensors").write_bytes(weights)
    record = {**entry, "sha256": hashlib.sha256(weights).hexdigest(), "converted_from": "test"}
    (folder / "generator.json").write_text(json.dumps(record))
    state = train(tmp_path / "run", "digits_prior", *SHORT, f"initialiser.path={folder}", "short_run.updates=1")
    untouched = state["bank"]["ages"] == 0
    expected = network.eval()(state["bank"]["latents"][untouched])
    assert torch.allclose(state["bank"]["states"][untouched], expected, atol=1e-6)


def test_the_priors_terms_are_in_the_chains_and_not_in_the_loss(tmp_path: Path) -> None:
    """With and without them the first update sees the same positives at the same f, and moves its chains otherwise."""
    priors = {"wide": "prior={ tau = 1e6 }", "narrow": "prior={ tau = 0.1 }", "energy": ZOO_PRIOR}
    lines, sums = {}, set()
    for name, prior in priors.items():
        state = train(tmp_path / name, "digits_long", *LONG, prior, "long_run.updates=1")
        lines[name] = read_metrics(tmp_path / name)[0]
        sums.add(float(state["bank"]["bank"]["states"].sum()))
    assert len({line["energy_positives"] for line in lines.values()}) == 1
    assert lines["narrow"]["drift_norm"] > 2 * lines["wide"]["drift_norm"]
    assert len(sums) == 3


@pytest.mark.parametrize(
    ("recipe", "overrides", "error", "message"),
    [
        ("digits_prior", ["initialiser.path=nowhere.pt"], CheckpointError, "nowhere.pt does not exist"),
        (
            "digits_long",
            [*LONG, "prior.energy=nowhere.safetensors"],
            CheckpointError,
            "nowhere.safetensors does not exist",
        ),
        ("digits_long", [*LONG, "prior.network.arguments.width=16"], NetworkError, "energy.safetensors does not fit"),
        (
            "digits_short",
            [*SHORT, GENERATOR, "initialiser.network.name=light"],
            NetworkError,
            "LightEnergy is not a generator",
        ),
        (
            "digits_short",
            [*SHORT, GENERATOR, "data.name=mnist", "network.arguments.image_size=32"],
            ConfigError,
            "mnist has",
        ),
    ],
)
def test_parts_that_do_not_fit_are_named(
    tmp_path: Path, recipe: str, overrides: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(tmp_path / "run", recipe, *overrides)
    assert not (tmp_path / "run").exists()


def test_a_prior_must_be_what_its_checkpoint_was_trained_with(tmp_path: Path) -> None:
    flat = [*SHORT, "initialiser={ kind = 'data' }", "prior.tau=0.3"]
    train(tmp_path / "prior", "digits_prior", *flat)
    energy = f"prior={{ tau = 0.5, energy = '{tmp_path}/prior/checkpoint.pt' }}"
    with pytest.raises(ConfigError, match=r"prior.tau: .*was trained with 0.3, got 0.5"):
        train(tmp_path / "long", "digits_long", *LONG, energy)
    train(tmp_path / "second", "digits_long", *LONG)
    energy = f"prior={{ tau = 0.5, energy = '{tmp_path}/second/checkpoint.pt' }}"
    with pytest.raises(ConfigError, match=r"has a prior energy of its own"):
        train(tmp_path / "third", "digits_long", *LONG, energy)


def test_chains_follow_the_recipes_clip_and_number_of_steps(tmp_path: Path) -> None:
    """f = 0 and a Gaussian of 0.1 pull images with |x| / tau^2, about 600; clipped, a step's drift is known."""
    flat = "network={ name = 'quadratic', arguments = { curvature = 0.0 } }"
    data = "initialiser={ kind = 'data' }"
    steps = "num_steps = [[0, 1], [2, 40]]"
    steps = f"short_run={{ updates = 4, {steps}, learning_rates = 1e-30, data_noise = 0.0, bank_size = 0 }}"
    train(tmp_path / "clipped", "digits_prior", flat, data, steps, "prior.tau=0.1", "short_run.langevin_clip=2.0")
    for line in read_metrics(tmp_path / "clipped"):
        assert line["drift_norm"] == pytest.approx(0.03**2 / 2 * 2.0, rel=1e-4)
    train(tmp_path / "free", "digits_prior", flat, data, steps, "prior.tau=0.1")
    drift = [line["drift_norm"] for line in read_metrics(tmp_path / "free")]
    # |x_k| shrinks by 1 - a each step, a = 0.03^2 / (2 * 0.1^2): the mean drift of 40 steps says how many there were.
    a = 0.03**2 / (2 * 0.1**2)
    expected = sum((1 - a) ** step for step in range(40)) / 40
    assert sum(drift[2:]) / sum(drift[:2]) == pytest.approx(expected, rel=0.05)


def test_a_run_does_not_go_on_in_another_regime(tmp_path: Path) -> None:
    data = "initialiser={ kind = 'data' }"
    train(tmp_path, "digits_prior", *SHORT, data)
    with pytest.raises(CheckpointError, match="not those of long-run learning"):
        train(tmp_path, "digits_long", *LONG[:-1], "prior={ tau = 0.5 }", resume=True, amend=True)
    with pytest.raises(CheckpointError, match="no generator to go on with"):
        train(tmp_path, "digits_short", *SHORT, GENERATOR, resume=True, amend=True)


def test_an_amendment_of_a_finished_run_is_recorded(tmp_path: Path) -> None:
    data = "initialiser={ kind = 'data' }"
    first = train(tmp_path, "digits_prior", *SHORT, data)
    slower = "short_run.learning_rates=1e-5"
    amended = train(tmp_path, "digits_prior", *SHORT, data, slower, resume=True, amend=True)
    assert [each["update"] for each in amended["amendments"]] == [first["update"]]
    again = train(tmp_path, "digits_prior", *SHORT, data, slower, resume=True)
    assert again["amendments"] == amended["amendments"]
    assert again["cpu_seconds"] == first["cpu_seconds"]
    assert all(torch.equal(again["average"][name], value) for name, value in first["average"].items())


def test_an_energy_that_is_half_of_a_density_is_not_exported(tmp_path: Path, digits_bundle: Bundle) -> None:
    train(tmp_path / "prior", "digits_prior", *SHORT, "initialiser={ kind = 'data' }")
    description = tmp_path / "classifier.toml"
    description.write_text("size = [8, 8]\nclass_names = []\n[normalisation]\nmean = [0.0]\nstd = [1.0]\n")
    graph = digits_bundle.folder / "classifier.onnx"
    with pytest.raises(CheckpointError, match=r"checkpoint.pt is f beside a prior"):
        export_bundle(tmp_path / "bundle", tmp_path / "prior" / "checkpoint.pt", graph, description)
    assert not (tmp_path / "bundle").exists()


def test_a_checkpoint_of_a_mid_run_from_before_the_other_regimes_goes_on(tmp_path: Path) -> None:
    """Its recipe lacks their sections, its bank latents, and a generator stands for the streams of data."""
    few = ["network.arguments.width=8", "sampler.num_steps=3", "warm_start.updates=2", "mid_run.bank_size=100"]
    state = train(tmp_path, "digits_midrun", *few, "mid_run.updates=4", "mid_run.checkpoint_every=2")
    recipe = load_recipe("digits_midrun", [*few, "mid_run.updates=4", "mid_run.checkpoint_every=2"])
    old = recipe.model_dump(mode="json", exclude_unset=True)
    old["mid_run"]["rejuvenation_prob"] = 0.1
    del state["fixed"], state["generator"], state["bank"]["latents"], state["data"]
    generator = torch.Generator().get_state()
    torch.save({**state, "recipe": json.dumps(old), "data_generator": generator}, tmp_path / "checkpoint.pt")
    again = train(
        tmp_path, "digits_midrun", *few, "mid_run.updates=6", "mid_run.checkpoint_every=2", resume=True, amend=True
    )
    assert again["amendments"] == [{"update": 6, "changed": ["mid_run.updates: 4 -> 6"]}]
    assert again["update"] == 8
    assert (again["data"]["warm start"], again["data"]["positives"]) == ({"batches": 2}, {"batches": 6})


def test_real_weights_serve_as_a_prior(tmp_path: Path) -> None:
    """The digits bundle's energy alone, with f held at zero, keeps data where it is: its chains stay close."""
    zero = "network={ name = 'quadratic', arguments = { curvature = 0.0 } }"
    prior = ZOO_PRIOR.replace("tau = 0.5, ", "")
    start = [*LONG[1:-1], prior, zero, "long_run.learning_rates=1e-30", "long_run.updates=3", "sampler.num_steps=20"]
    state = train(tmp_path, "digits_long", *start)
    states = state["bank"]["bank"]["states"]
    nearest = (
        torch.cdist(states.flatten(1), from_uint8(load_dataset("digits", "train").images).flatten(1)).min(1).values
    )
    # 60 steps of noise 0.03 alone would lead 8 pixels x 8 pixels by 0.03 * sqrt(60 * 64) = 1.9.
    assert nearest.max() < 1.8
