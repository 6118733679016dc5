from pathlib import Path

import pytest

from models.config import apply_overrides, validate
from models.device import resolve_device
from models.errors import ConfigError
from models.langevin import LangevinConfig
from models.training.recipe import FOLDER, EnergyRecipe, load_recipe

RECIPES = [path.stem for path in FOLDER.glob("*.toml") if not path.stem.endswith("_presets")]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_loads(name: str) -> None:
    assert load_recipe(name).data.name in name


def test_the_papers_values_stand_in_its_recipe() -> None:
    recipe = load_recipe("cifar10_midrun_sngan")
    assert isinstance(recipe, EnergyRecipe)
    assert (recipe.sampler.num_steps, recipe.sampler.step_size, recipe.sampler.temperature) == (100, 0.01, 1e-4)
    mid = recipe.mid_run
    assert (mid.updates, mid.batch_size, mid.bank_size, mid.rejuvenation_prob) == (150_000, 128, 20_000, 0.025)
    assert mid.learning_rates[-1] == (125_000, 1e-8)


def test_overrides_reach_nested_keys_and_keep_toml_types() -> None:
    table = apply_overrides({"a": {"b": 1}}, ["a.b=2.5", "a.c=[1, 2]", "a.d=true", "e.f=plain text", "g='1'"])
    assert table == {"a": {"b": 2.5, "c": [1, 2], "d": True}, "e": {"f": "plain text"}, "g": "1"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sampler.steps=5", "sampler.steps: Extra inputs are not permitted"),
        ("sampler.step_size=-1", "sampler.step_size: .*greater than 0.*-1"),
        ("sampler.step_size=nan", "sampler.step_size: .*finite"),
        ("mid_run.rejuvenation_prob=2", "mid_run.rejuvenation_prob: .*2"),
        ("mid_run.learning_rates=[]", "mid_run.learning_rates: .*at least 1"),
        ("mid_run.learning_rates=[[5, 1e-4]]", r"mid_run: .*start at update 0 and ascend, got updates \[5\]"),
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


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match="temperature: Field required"):
        validate(LangevinConfig, {"num_steps": 1, "step_size": 0.1}, "test")


def test_an_unknown_recipe_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="digits_midrun"):
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
