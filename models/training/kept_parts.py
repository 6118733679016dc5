"""Networks taken out of their runs, to be committed or put together: a folder each.

NAME/
  weights.safetensors   the averaged weights
  recipe.json           what they are
  metrics.jsonl         how their learning went
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor

from models.bundle import MANIFEST, load_bundle, read_manifest
from models.errors import CheckpointError, ConfigError
from models.files import replace_file
from models.networks import build_network
from models.training.frozen_parts import RECIPE, WEIGHTS, learned
from models.training.run import METRICS, read_metrics

MIXABLE = "compact_resnet"


def keep(folder: Path, weights: dict[str, Tensor], recipe: dict[str, Any], metrics: list[dict[str, float]]) -> None:
    """Write the folder; its recipe last, for it is what makes the folder a part."""
    folder.mkdir(parents=True, exist_ok=True)
    contiguous = {key: tensor.contiguous() for key, tensor in weights.items()}
    replace_file(folder / WEIGHTS, save_safetensors(contiguous))
    replace_file(folder / METRICS, "".join(json.dumps(line) + "\n" for line in metrics).encode())
    replace_file(folder / RECIPE, (json.dumps(recipe, indent=1) + "\n").encode())


def mix(robust: Path, accurate: Path, robust_weight: float, sharpness: float, folder: Path) -> None:
    """Make one classifier of two (`models.networks.mixed_classifier`), each of a run, a kept part or a bundle.

    Raises:
        ConfigError: they are not both CompactResNets that read the same normalisation, or a setting is out of range.
        CheckpointError: one of them is no classifier.
    """
    parts = {"robust": _classifier(robust), "accurate": _classifier(accurate)}
    recipes = {name: recipe for name, (_, recipe, _) in parts.items()}
    for path, recipe in zip((robust, accurate), recipes.values(), strict=True):
        if recipe["network"]["name"] != MIXABLE:
            raise ConfigError(f"{path}: expected a {MIXABLE} to mix, got {recipe['network']['name']}")
    if recipes["robust"]["normalisation"] != recipes["accurate"]["normalisation"]:
        raise ConfigError(f"{robust} and {accurate} read images of different normalisations")
    arguments = {name: recipe["network"]["arguments"] for name, recipe in recipes.items()}
    network: dict[str, Any] = {
        "name": "mixed_classifier",
        "arguments": {**arguments, "robust_weight": robust_weight, "sharpness": sharpness},
    }
    build_network(network["name"], network["arguments"])
    recipe = {"kind": "classifier", "network": network, "mixed": recipes}
    recipe |= {key: recipes["robust"][key] for key in ("data", "normalisation")}
    weights = {f"{name}.{key}": tensor for name, (tensors, _, _) in parts.items() for key, tensor in tensors.items()}
    updates, seconds = (sum(spent[i] for _, _, spent in parts.values()) for i in range(2))
    keep(folder, weights, recipe, [{"update": updates, "cpu_seconds": seconds}])


def spent_on(folder: Path) -> tuple[int, float]:
    """Updates and CPU seconds of a kept part, those of the weights that it began from among them.

    Raises:
        CheckpointError: it, or what it began from, does not say.
    """
    lines = read_metrics(folder)
    if not lines:
        raise CheckpointError(f"{folder / METRICS} does not say how its weights were made")
    updates, seconds = int(lines[-1]["update"]), lines[-1]["cpu_seconds"]
    began = json.loads((folder / RECIPE).read_text()).get("weights")
    if began is None:
        return updates, seconds
    # A search's list names its parts in braces; they are kept side by side.
    before = spent(folder.parent / began.strip("{}") if began.startswith("{") else Path(began))
    return updates + before[0], seconds + before[1]


def spent(path: Path) -> tuple[int, float]:
    """The same of a classifier's checkpoint.pt, kept part or bundle."""
    if not (path / MANIFEST).exists():
        return spent_on(path if path.is_dir() else path.parent)
    record = read_manifest(path).training
    if record is None or record.classifier is None:
        raise CheckpointError(f"{path} does not say how its classifier was trained; give its run's checkpoint.pt")
    return record.classifier.updates, 3600 * record.classifier.cpu_hours


def _classifier(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], tuple[int, float]]:
    """Weights, recipe, and what was spent on them."""
    if not (path / MANIFEST).exists():
        return *learned(path, "classifier"), spent(path)
    bundle, costs = load_bundle(path, torch.device("cpu")), spent(path)
    assert bundle.manifest.training is not None
    assert bundle.manifest.training.classifier is not None
    return bundle.defence.classifier.state_dict(), bundle.manifest.training.classifier.recipe, costs
