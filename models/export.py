"""Turning training checkpoints into a bundle."""

import json
import logging
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from models.bundle import (
    CLASSIFIER_ONNX,
    CLASSIFIER_WEIGHTS,
    ENERGY_WEIGHTS,
    MANIFEST,
    MODEL_CARD,
    ClassifierEntry,
    ImageShape,
    Manifest,
    NetworkEntry,
    sha256,
)
from models.config import Frozen, read_toml, validate
from models.data import ImageDataset
from models.errors import CheckpointError, ConfigError
from models.langevin import LangevinConfig
from models.model_card import render_model_card
from models.networks import build_network, load_weights
from models.pixels import Normalisation
from models.purifier import Preset
from models.training.run import State, load_checkpoint, read_metrics


class Presets(Frozen):
    """A `presets` file: how the bundle answers requests, by name."""

    kind: Literal["presets"] = "presets"
    default: str
    presets: dict[str, Preset]


class ForeignClassifier(Frozen):
    """The description beside an ONNX file that users bring: what it reads and what its outputs mean."""

    size: tuple[int, int]
    normalisation: Normalisation
    class_names: tuple[str, ...]


def default_presets(sampler: LangevinConfig) -> Presets:
    """Two, eight and sixteen training runs long, with the training sampler's step."""
    lengths = {"fast": (2, 4), "balanced": (8, 4), "strong": (16, 8)}
    step = sampler.model_dump(exclude={"num_steps"})
    presets = {
        name: Preset(num_steps=runs * sampler.num_steps, replicates=replicates, **step)
        for name, (runs, replicates) in lengths.items()
    }
    return Presets(default="balanced", presets=presets)


def read_presets(path: Path) -> Presets:
    """A presets TOML file; raises ConfigError that names the key."""
    return validate(Presets, read_toml(path), str(path))


def export_bundle(
    folder: Path,
    energy_checkpoint: Path,
    classifier: Path,
    dataset: ImageDataset,
    classifier_description: Path | None = None,
    presets: Presets | None = None,
    name: str | None = None,
) -> Manifest:
    """Write a bundle into `folder`, replacing one that is there; returns its manifest.

    Args:
        classifier: a classifier run's checkpoint.pt, or an .onnx file with `classifier_description` beside it.
        dataset: what the energy was trained on; gives the image's shape and the class names.
    """
    energy_state = load_checkpoint(energy_checkpoint)
    recipe = json.loads(energy_state["recipe"])
    if recipe["kind"] != "energy":
        raise CheckpointError(f"{energy_checkpoint} holds a {recipe['kind']}, expected an energy")
    files = {ENERGY_WEIGHTS: save_safetensors(_contiguous(energy_state["average"]))}
    training: dict[str, Any] = {
        "commit": _commit(),
        "torch": torch.__version__,
        "energy": provenance(energy_state, energy_checkpoint),
    }
    class_names = dataset.class_names
    if classifier.suffix == ".onnx":
        described = _describe(classifier_description)
        files[CLASSIFIER_ONNX] = classifier.read_bytes()
        entry = ClassifierEntry(network=None, normalisation=described.normalisation, size=described.size)
        class_names = described.class_names
    else:
        classifier_state = load_checkpoint(classifier)
        entry, classifier_files = _own_classifier(classifier_state, classifier, dataset)
        files |= classifier_files
        training["classifier"] = provenance(classifier_state, classifier)
    chosen = presets or default_presets(LangevinConfig(**recipe["sampler"]))
    _, channels, height, width = dataset.images.shape
    manifest = Manifest(
        name=name or folder.name,
        description=f"Mid-run energy ({recipe['network']['name']}) and classifier for {dataset.name}.",
        image=ImageShape(height=height, width=width, channels=channels),
        class_names=class_names,
        energy=NetworkEntry(architecture=recipe["network"]["name"], arguments=recipe["network"]["arguments"]),
        classifier=entry,
        presets=chosen.presets,
        default_preset=chosen.default,
        files={file: sha256(content) for file, content in files.items()},
        training=training,
    )
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    write_manifest(folder, manifest)
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest and model card; the manifest last and atomically, for it is what makes the folder a bundle."""
    (folder / MODEL_CARD).write_text(render_model_card(manifest))
    scratch = folder / f".{MANIFEST}.partial"
    scratch.write_text(manifest.model_dump_json(indent=2) + "\n")
    scratch.replace(folder / MANIFEST)


def provenance(state: State, checkpoint: Path) -> dict[str, Any]:
    """What made a checkpoint: recipe, amendments to it, updates, CPU hours and a summary of the run's log."""
    return {
        "recipe": json.loads(state["recipe"]),
        "amendments": state["amendments"],
        "updates": state["update"],
        "cpu_hours": round(state["cpu_seconds"] / 3600, 3),
        "log": summarise_log(read_metrics(checkpoint.parent)),
    }


def summarise_log(lines: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Each logged quantity's first value, its last, and its mean over the last tenth of its lines."""
    summary = {}
    for key in dict.fromkeys(key for line in lines for key in line if key not in ("update", "cpu_seconds")):
        values = [line[key] for line in lines if key in line]
        tail = values[-max(1, len(values) // 10) :]
        numbers = {"first": values[0], "last": values[-1], "mean_of_last_tenth": sum(tail) / len(tail)}
        summary[key] = {name: round(number, 5) for name, number in numbers.items()}
    return summary


def export_onnx(network: nn.Module, image_shape: tuple[int, ...]) -> bytes:
    """The classifier as an ONNX graph, inputs `image` [batch, C, H, W] normalised, output `logits` [batch, K]."""
    example = (torch.zeros(2, *image_shape),)
    batch = torch.export.Dim("batch")
    # The exporter tells of torchvision's absence and of its own deprecations, neither of which concerns the graph.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(scratch) / CLASSIFIER_ONNX
        torch.onnx.export(
            network.eval(),
            example,
            str(path),
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: batch},),
        )
        return path.read_bytes()


def _own_classifier(state: State, path: Path, dataset: ImageDataset) -> tuple[ClassifierEntry, dict[str, bytes]]:
    recipe = json.loads(state["recipe"])
    if recipe["kind"] != "classifier":
        raise CheckpointError(f"{path} holds an {recipe['kind']}, expected a classifier")
    network = build_network(recipe["network"]["name"], recipe["network"]["arguments"])
    load_weights(network, state["average"], str(path))
    entry = ClassifierEntry(
        network=NetworkEntry(architecture=recipe["network"]["name"], arguments=recipe["network"]["arguments"]),
        normalisation=Normalisation(**recipe["normalisation"]),
    )
    weights = save_safetensors(_contiguous(state["average"]))
    graph = export_onnx(network, tuple(dataset.images.shape[1:]))
    return entry, {CLASSIFIER_WEIGHTS: weights, CLASSIFIER_ONNX: graph}


def _describe(path: Path | None) -> ForeignClassifier:
    if path is None:
        raise ConfigError(
            "an .onnx classifier needs --classifier-config FILE.toml with size, normalisation, class_names"
        )
    return validate(ForeignClassifier, read_toml(path), str(path))


def _contiguous(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.contiguous() for key, tensor in weights.items()}


def _commit() -> str:
    """The repository's commit, or "unknown" outside a checkout."""
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return result.stdout.strip()
