"""Turning training checkpoints into a bundle."""

import json
import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from models.bundle import (
    CLASSIFIER_ONNX,
    CLASSIFIER_WEIGHTS,
    ENERGY_WEIGHTS,
    MANIFEST,
    MODEL_CARD,
    load_bundle,
    read_manifest,
    sha256,
)
from models.config import Frozen, read_toml, validate
from models.data import DataSection, class_names
from models.errors import BundleError, CheckpointError, ConfigError
from models.files import commit, replace_file
from models.langevin import LangevinConfig
from models.manifest import ClassifierEntry, ImageShape, Manifest, NetworkEntry, PartRecord, TrainingRecord
from models.model_card import render_model_card
from models.networks import build_network, load_weights
from models.networks.conditioning import classes_of
from models.pixels import Normalisation
from models.purifier import Preset
from models.training.frozen_parts import learned
from models.training.kept_parts import spent_on
from models.training.recipe import EnergyRecipe
from models.training.run import State, load_checkpoint, load_trained, read_metrics


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
    """Two, eight and sixteen training runs long, with the training sampler's step, which nothing clamps here."""
    lengths = {"fast": (2, 4), "balanced": (8, 4), "strong": (16, 8)}
    step = sampler.model_dump(exclude={"num_steps", "gradient_clamp", "box"})
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
    energy: Path,
    classifier: Path,
    classifier_description: Path | None = None,
    presets: Presets | None = None,
    description: str | None = None,
) -> Manifest:
    """Write a bundle, and only when it loads put it in the place of one in `folder`; returns its manifest.

    Measurements and calibrations of a bundle that is replaced by an equal one (of the same digest) are kept.

    Args:
        energy: an energy run's checkpoint.pt, or the folder of a bundle that was trained here, whose energy is taken.
        classifier: a classifier run's checkpoint.pt, the folder of a kept or mixed one (`models.training.kept_parts`),
            or an .onnx file with `classifier_description` beside it.
    """
    weights, record = _energy(energy)
    recipe = record.recipe
    data, regime = DataSection(**recipe["data"]), EnergyRecipe(**recipe).regime.capitalize()
    files = {ENERGY_WEIGHTS: weights}
    classifier_record = None
    if classifier.suffix == ".onnx":
        described = _describe(classifier_description)
        files[CLASSIFIER_ONNX] = _read_graph(classifier)
        entry = ClassifierEntry(network=None, normalisation=described.normalisation, size=described.size)
        names = described.class_names
    else:
        entry, classifier_files, classifier_record = _own_classifier(classifier, data)
        names = class_names(data)
        files |= classifier_files
    chosen = presets or default_presets(LangevinConfig(**recipe["sampler"]))
    channels, height, width = data.shape
    manifest = Manifest(
        name=folder.name,
        description=description or f"{regime} energy ({recipe['network']['name']}) and classifier for {data.name}.",
        image=ImageShape(height=height, width=width, channels=channels),
        class_names=names,
        energy=NetworkEntry(architecture=recipe["network"]["name"], arguments=recipe["network"]["arguments"]),
        classifier=entry,
        presets=chosen.presets,
        default_preset=chosen.default,
        files={file: sha256(content) for file, content in files.items()},
        training=TrainingRecord(
            commit=commit(),
            torch=torch.__version__,
            energy=record,
            classifier=classifier_record,
        ),
    )
    manifest = _keep_measurements(manifest, folder)
    _put_in_place(folder, manifest, files)
    return manifest


def _energy(path: Path) -> tuple[bytes, PartRecord]:
    """Weights and history of an energy that can stand alone in a bundle; raises CheckpointError for another."""
    if path.is_dir():
        manifest = load_bundle(path, torch.device("cpu")).manifest
        if manifest.training is None:
            raise CheckpointError(f"{path} does not say how its energy was trained; give its run's checkpoint.pt")
        return (path / ENERGY_WEIGHTS).read_bytes(), manifest.training.energy
    state, recipe = load_trained(path, "energy")
    if recipe.get("prior"):
        raise CheckpointError(f"{path} is f beside a prior; a bundle holds an energy that stands alone")
    if classes_of(build_network(recipe["network"]["name"], recipe["network"]["arguments"])):
        raise CheckpointError(f"{path} is an energy of images with labels; a bundle's reads images alone")
    return save_safetensors(_contiguous(state["average"])), provenance(state, path)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write model card and manifest; the manifest last, for it is what makes the folder a bundle."""
    replace_file(folder / MODEL_CARD, render_model_card(manifest).encode())
    replace_file(folder / MANIFEST, (manifest.model_dump_json(indent=2) + "\n").encode())


def _put_in_place(folder: Path, manifest: Manifest, files: dict[str, bytes]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        staged, old = Path(scratch) / "new", Path(scratch) / "old"
        staged.mkdir()
        for file, content in files.items():
            (staged / file).write_bytes(content)
        write_manifest(staged, manifest)
        load_bundle(staged, torch.device("cpu"))
        if folder.exists():
            folder.rename(old)
        staged.rename(folder)


def _keep_measurements(manifest: Manifest, folder: Path) -> Manifest:
    if not (folder / MANIFEST).exists():
        return manifest
    try:
        replaced = read_manifest(folder)
    except BundleError:
        return manifest
    if replaced.digest != manifest.digest:
        return manifest
    kept = {name: getattr(replaced, name) for name in ("measured", "beside", "calibration")}
    return manifest.model_copy(update=kept)


def provenance(state: State, checkpoint: Path) -> PartRecord:
    """What made a checkpoint; the log is the one beside it."""
    return PartRecord(
        recipe=json.loads(state["recipe"]),
        amendments=state["amendments"],
        updates=state["update"],
        cpu_hours=round(state["cpu_seconds"] / 3600, 3),
        log=summarise_log(read_metrics(checkpoint.parent)),
    )


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
        return strip_traces(path.read_bytes())


def strip_traces(graph: bytes) -> bytes:
    """The graph without the exporter's notes on it, which hold stack traces and so file paths of this machine."""
    import onnx  # of the `train` extra

    model = onnx.load_from_string(graph)
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    stripped: bytes = model.SerializeToString()
    return stripped


def _own_classifier(path: Path, data: DataSection) -> tuple[ClassifierEntry, dict[str, bytes], PartRecord]:
    weights, recipe = learned(path, "classifier")
    if recipe["data"]["name"] != data.name:
        raise CheckpointError(f"{path} was trained on {recipe['data']['name']}, the energy on {data.name}")
    network = build_network(recipe["network"]["name"], recipe["network"]["arguments"])
    load_weights(network, weights, str(path))
    entry = ClassifierEntry(
        network=NetworkEntry(architecture=recipe["network"]["name"], arguments=recipe["network"]["arguments"]),
        normalisation=Normalisation(**recipe["normalisation"]),
    )
    files = {
        CLASSIFIER_WEIGHTS: save_safetensors(_contiguous(weights)),
        CLASSIFIER_ONNX: export_onnx(network, data.shape),
    }
    if not path.is_dir():
        return entry, files, provenance(load_checkpoint(path), path)
    updates, seconds = spent_on(path)
    log = summarise_log(read_metrics(path))
    return entry, files, PartRecord(recipe=recipe, updates=updates, cpu_hours=round(seconds / 3600, 3), log=log)


def _read_graph(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"classifier {path}: {error.strerror}") from error


def _describe(path: Path | None) -> ForeignClassifier:
    if path is None:
        raise ConfigError(
            "an .onnx classifier needs --classifier-config FILE.toml with size, normalisation, class_names"
        )
    return validate(ForeignClassifier, read_toml(path), str(path))


def _contiguous(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.contiguous() for key, tensor in weights.items()}
