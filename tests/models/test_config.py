from pathlib import Path

import pytest

from models.config import apply_overrides, validate
from models.device import resolve_device
from models.errors import ConfigError
from models.langevin import LangevinConfig
from models.training.recipe import EnergyRecipe, load_recipe, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads(name: str) -> None:
    data = load_recipe(name).data
    assert (data.name if data.folder is None else data.folder.name) in name


def test_overrides_reach_nested_keys_and_keep_toml_types() -> None:
    table = apply_overrides({"a": {"b": 1}}, ["a.b=2.5", "a.c=[1, 2]", "a.d=true", "e.f=plain text", "g='1'"])
    assert table == {"a": {"b": 2.5, "c": [1, 2], "d": True}, "e": {"f": "plain text"}, "g": "1"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sampler.steps=5", "sampler.steps: Extra inputs are not permitted"),
        ("sampler.step_size=-1", "sampler.step_size: .*greater than 0.*-1"),
        ("sampler.step_size=nan", "sampler.step_size: .*finite"),
        ("mid_run.rejuvenation_prob=2", r"mid_run.rejuvenation_prob.0.1: .*less than or equal to 1, got 2"),
        ("mid_run.learning_rates=[]", "mid_run.learning_rates: .*at least 1"),
        ("mid_run.learning_rates=[[5, 1e-4]]", r"mid_run.learning_rates: .*start at update 0 and ascend.*\[5\]"),
        ("mid_run.learning_rates=[[0, 1e-4], [9, 1e-5], [9, 1e-6]]", r"ascend, got updates \[0, 9, 9\]"),
        ("mid_run.num_steps=0", "mid_run.num_steps.0.1: .*greater than or equal to 1, got 0"),
        ("mid_run.max_age=-1", "mid_run.max_age: .*-1"),
        ("mid_run.bank_size=0", "bank_size is 0: every chain restarts"),
        ("short_run.updates=5", "short_run.data_noise: Field required"),
        ("long_run={ updates = 5, data_noise = 0.1, learning_rates = 1e-4 }", "one section .* got mid_run, long_run"),
        ("initialiser.kind=images", "initialiser: .*'images'.*'noise', 'data', 'generator', 'frozen_generator'"),
        ("initialiser.kind=generator", "initialiser.generator.network: Field required"),
        ("initialiser.learning_rates=1e-4", "initialiser: .*"),
        ("prior.tau=0", "prior.tau: .*greater than 0"),
        ("prior={}", "prior: .*expected tau, energy or both"),
        ("prior.energy=a.safetensors", "prior: .*a.safetensors holds weights alone: network and temperature"),
        (
            "prior={ energy = 'checkpoint.pt', temperature = 1e-3 }",
            "belong to a .safetensors file, got .*checkpoint.pt",
        ),
        ("mid_run.bank_size=10", "bank_size 10 is less than batch_size 64"),
        ("mid_run.log_every=0", "mid_run.log_every: .*greater than or equal to 1"),
        ("warm_start.min_noise=0.7", "max_noise 0.6 must be above min_noise 0.7"),
        ("data.name=imagenet", "data.name: .*'cifar10', 'mnist', .* or 'folder'"),
        ("kind=long-run", "'long-run'"),
        ("sampler", "expected key=value"),
        ("seed.x=1", "'seed' is a value"),
    ],
)
def test_a_wrong_override_is_refused_with_its_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        load_recipe("digits_midrun", [override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("long_run.burn_in_size=63", "long_run: .*burn_in_size 63 and bank_size 1000 must be at least batch_size 64"),
        ("long_run.bank_size=0", "long_run: .*bank_size 0 must be at least"),
        ("long_run.burn_in_updates=0", "long_run.burn_in_updates: .*greater than or equal to 1"),
        ("long_run.rejuvenation_prob=0.1", "long_run.rejuvenation_prob: Extra inputs"),
        ("initialiser={ kind='generator', network={ name='g' }, learning_rates=1 }", "long_run takes another kind"),
    ],
)
def test_a_wrong_long_run_is_refused_with_its_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        load_recipe("digits_long", [override])


def test_a_bare_number_is_a_constant_schedule() -> None:
    recipe = load_recipe("digits_prior", ["short_run.num_steps=[[0, 5], [10, 7]]"])
    assert isinstance(recipe, EnergyRecipe)
    assert recipe.learning.learning_rates == ((0, 1e-4),)
    assert recipe.learning.num_steps == ((0, 5), (10, 7))
    assert recipe.regime == "short-run"


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match="temperature: Field required"):
        validate(LangevinConfig, {"num_steps": 1, "step_size": 0.1}, "test")


def test_an_unknown_recipe_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="digits_midrun, .*paper/cifar10_short"):
        load_recipe("digits")
    broken = tmp_path / "broken.toml"
    broken.write_text("kind = 1\nkind = 2\n")
    with pytest.raises(ConfigError, match=r"broken.toml: .*line 2"):
        load_recipe(str(broken))


def test_a_gpu_asked_for_and_absent_is_an_error() -> None:
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match="cuda:77"):
        resolve_device("cuda:77")
    with pytest.raises(ConfigError, match="'gpu'"):
        resolve_device("gpu")
    with pytest.raises(ConfigError, match="'meta' is not supported"):
        resolve_device("meta")
