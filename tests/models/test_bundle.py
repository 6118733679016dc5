"""Bundles: strict to load, complete when exported, and the same in torch and ONNX Runtime."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.__main__ import main
from models.bundle import Bundle, load_bundle, read_manifest, sha256
from models.data import ImageDataset
from models.errors import BundleError, NetworkError
from models.pixels import from_uint8
from tests.conftest import ZOO

CPU = torch.device("cpu")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ZOO / "digits-midrun", tmp_path / "bundle"))


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def reseal(folder: Path, name: str) -> None:
    """Give the manifest the digest of an altered file, as an honest author of another bundle would."""
    edit(folder, lambda m: m["files"].update({name: sha256((folder / name).read_bytes())}))


def test_one_changed_byte_is_refused(copy: Path) -> None:
    path = copy / "energy.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"energy.safetensors has SHA-256 .* the manifest expects"):
        load_bundle(copy, CPU)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "classifier.onnx").unlink()
    with pytest.raises(BundleError, match=r"classifier.onnx is missing"):
        load_bundle(copy, CPU)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["energy"].update(architecture="transformer"), "unknown architecture 'transformer'"),
        (lambda m: m["energy"]["arguments"].update(depth=2), "depth"),
        (lambda m: m["energy"]["arguments"].update(width=16), "has shape .* expected"),
        (lambda m: m["class_names"].pop(), "expected one energy and 9 logits"),
        (lambda m: m["image"].update(height=16), r"got shapes \[5\]"),
        (
            lambda m: m["classifier"]["normalisation"].update(mean=[0.1] * 3, std=[0.2] * 3),
            "has 3 channels",
        ),
        (lambda m: m["classifier"]["normalisation"].update(std=[0.0]), "std.*greater than 0"),
        (lambda m: m.pop("presets"), "presets: Field required"),
        (lambda m: m.update(default_preset="best"), "'best' is not one of"),
        (lambda m: m["presets"]["fast"].update(step_size=-1), r"presets.fast.step_size: .*greater than 0"),
        (lambda m: m.update(pickle="yes"), "pickle: Extra inputs"),
        (lambda m: m["files"].pop("energy.safetensors"), "files does not list energy.safetensors"),
        (lambda m: m["files"].update({"../secret": "0" * 64}), "may only name files of the bundle"),
    ],
)
def test_a_wrong_manifest_names_its_fault(copy: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    edit(copy, change)
    with pytest.raises(BundleError, match=f"(?s){message}"):
        load_bundle(copy, CPU)


def test_a_missing_weight_is_named(copy: Path) -> None:
    weights = load_file(copy / "energy.safetensors")
    del weights["layers.0.bias"]
    save_file(weights, copy / "energy.safetensors")
    reseal(copy, "energy.safetensors")
    with pytest.raises(BundleError, match=r"energy.safetensors does not fit LightEnergy: missing layers.0.bias"):
        load_bundle(copy, CPU)


def test_a_pickle_in_place_of_weights_is_never_opened(copy: Path) -> None:
    torch.save({"layers.0.bias": torch.zeros(1)}, copy / "energy.safetensors")
    reseal(copy, "energy.safetensors")
    with pytest.raises(BundleError, match="not a safetensors file"):
        load_bundle(copy, CPU)


@pytest.mark.parametrize("name", ["digits-midrun", "cifar10-midrun"])
def test_the_graph_holds_no_file_paths(name: str) -> None:
    graph = (ZOO / name / "classifier.onnx").read_bytes()
    assert b".py" not in graph
    assert b"stack_trace" not in graph


def test_a_folder_that_is_no_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no manifest.json"):
        load_bundle(tmp_path, CPU)


def test_the_digest_names_what_is_served_not_what_was_measured(copy: Path) -> None:
    digest = read_manifest(copy).digest
    edit(copy, lambda m: m.update(measured={"anything": {}}, name="another", training=None))
    assert read_manifest(copy).digest == digest
    weights = read_manifest(copy).weights_digest
    edit(copy, lambda m: m["presets"]["fast"].update(num_steps=21))
    assert read_manifest(copy).digest != digest
    assert read_manifest(copy).weights_digest == weights
    edit(copy, lambda m: m["files"].update({"energy.safetensors": "0" * 64}))
    assert read_manifest(copy).weights_digest != weights


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_torch_and_onnx_agree_on_real_images(name: str, request: pytest.FixtureRequest) -> None:
    bundle: Bundle = request.getfixturevalue(f"{name}_bundle")
    data: ImageDataset = request.getfixturevalue(f"{name}_test")
    images = from_uint8(data.images[:64])
    exported = load_bundle(bundle.folder, CPU, runtime="onnx")
    assert type(exported.defence.classifier).__name__ == "OnnxClassifier"
    difference = (bundle.defence.classify(images) - exported.defence.classify(images)).abs().max()
    assert difference < 1e-4
    with pytest.raises(NetworkError, match="no gradients"):
        exported.defence.classify(images.requires_grad_(True))


def test_a_classifier_brought_as_onnx_is_served_with_its_own_size_and_labels(
    tmp_path: Path, digits_bundle: Bundle, digits_test: ImageDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    assert digits_bundle.manifest.training is not None
    recipe = digits_bundle.manifest.training.energy.recipe
    torch.save(
        {
            "recipe": json.dumps(recipe),
            "average": load_file(digits_bundle.folder / "energy.safetensors"),
            "amendments": [],
            "update": 1,
            "cpu_seconds": 0.0,
        },
        checkpoint,
    )
    description = tmp_path / "mine.toml"
    labels = [f"digit {n}" for n in range(10)]
    description.write_text(
        f"size = [8, 8]\nclass_names = {labels}\n[normalisation]\nmean = [77.775]\nstd = [95.88]\nscale = 255.0\n"
    )
    graph = digits_bundle.folder / "classifier.onnx"
    out = tmp_path / "bundle"
    command = ["export", str(checkpoint), "--classifier", str(graph), "--out", str(out)]
    assert main(command) == 2
    assert "--classifier-config" in capsys.readouterr().err
    assert main([*command, "--classifier-config", str(description)]) == 0
    bundle = load_bundle(out, CPU)
    assert bundle.manifest.class_names == tuple(labels)
    assert not (out / "classifier.safetensors").exists()
    images = from_uint8(digits_test.images[:50])
    expected = digits_bundle.defence.classify(images)
    assert torch.allclose(bundle.defence.classify(images), expected, atol=1e-3)


def test_a_bundles_energy_goes_before_another_classifier(tmp_path: Path, digits_bundle: Bundle) -> None:
    small = ["network.arguments.stem=8", "network.arguments.widths=[8]", "training.epochs=1"]
    settings = [f"--set={each}" for each in small]
    assert main(["train", "digits_classifier", *settings, f"--out={tmp_path / 'run'}", "--device=cpu"]) == 0
    made = tmp_path / "other"
    classifier = f"--classifier={tmp_path / 'run' / 'checkpoint.pt'}"
    assert main(["export", str(digits_bundle.folder), classifier, f"--out={made}"]) == 0
    other = load_bundle(made, torch.device("cpu"))
    energies = [each.manifest.files["energy.safetensors"] for each in (other, digits_bundle)]
    assert energies[0] == energies[1]
    assert other.manifest.training is not None
    assert digits_bundle.manifest.training is not None
    assert other.manifest.training.energy == digits_bundle.manifest.training.energy
    assert other.manifest.training.classifier != digits_bundle.manifest.training.classifier
    assert other.digest != digits_bundle.digest


def test_default_bundle_is_as_accurate_as_its_card_says(cifar10_bundle: Bundle, cifar10_test: ImageDataset) -> None:
    images = from_uint8(cifar10_test.images)
    with torch.no_grad():
        labels = torch.cat([cifar10_bundle.defence.classify(batch).argmax(1) for batch in images.split(500)])
    assert int((labels == cifar10_test.labels).sum()) >= 9_200
