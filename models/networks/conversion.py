"""Pretrained generators: PyTorch Mimicry's SNGANs as ours, in a folder that training loads one from.

FOLDER/
  generator.json           architecture, its arguments, the digest of the weights, and what they were converted from
  generator.safetensors    the weights
Mimicry (Lee and Town 2020) numbers its blocks from 2, after the linear layer l1; epsilons of batch norm agree.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from models.errors import CheckpointError, NetworkError
from models.files import replace_file
from models.manifest import NetworkEntry
from models.networks import build_network, load_weights
from models.networks.generator import SNGANGenerator

RECORD = "generator.json"
WEIGHTS = "generator.safetensors"

BLOCK_LAYERS = {"b1": "norm1", "c1": "conv1", "b2": "norm2", "c2": "conv2", "c_sc": "shortcut"}
"""Mimicry's name of each layer of an up-block, and ours."""
LAYER_TENSORS = ("weight", "bias")
NORM_TENSORS = (*LAYER_TENSORS, "running_mean", "running_var", "num_batches_tracked")


class GeneratorRecord(NetworkEntry):
    """What `generator.json` holds: the network, the SHA-256 of its weights, and the checkpoint's file name."""

    sha256: str
    converted_from: str


def convert_generator(checkpoint: Path, folder: Path) -> GeneratorRecord:
    """Write an SNGAN generator of Mimicry, for images of 32, 64 or 128 pixels, into `folder` as ours.

    Raises CheckpointError for a file that holds no weights, NetworkError that names missing, unexpected and misshapen
    tensors.
    """
    theirs = _read_checkpoint(checkpoint)
    blocks = max(1, len({name.partition(".")[0] for name in theirs if name.startswith("block")}))
    names = tensor_names(blocks)
    problems = [f"missing {name}" for name in names.keys() - theirs.keys()]
    problems += [f"unexpected {name}" for name in theirs.keys() - names.keys()]
    if problems:
        raise NetworkError(f"{checkpoint} is not an SNGAN generator of Mimicry: {'; '.join(sorted(problems))}")
    weights = {ours: theirs[name].contiguous() for name, ours in names.items()}
    entry = NetworkEntry(architecture="sngan_generator", arguments=_arguments(weights, blocks))
    network = build_network(entry.architecture, entry.arguments)
    load_weights(network, weights, str(checkpoint))
    content = save_safetensors(network.state_dict())
    digest = hashlib.sha256(content).hexdigest()
    record = GeneratorRecord(**entry.model_dump(), sha256=digest, converted_from=checkpoint.name)
    replace_file(folder / WEIGHTS, content)
    replace_file(folder / RECORD, (record.model_dump_json(indent=2) + "\n").encode())
    return record


def load_generator(folder: Path) -> SNGANGenerator:
    """The generator in `folder`, in evaluation mode and without gradients; raises NetworkError that says why not."""
    try:
        record = GeneratorRecord.model_validate_json((folder / RECORD).read_bytes())
        content = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise NetworkError(f"{folder} holds no generator: {error}; convert-generator makes one") from error
    except ValidationError as error:
        raise NetworkError(f"{folder / RECORD}: {error}") from error
    if (found := hashlib.sha256(content).hexdigest()) != record.sha256:
        raise NetworkError(f"{folder / WEIGHTS} has SHA-256 {found}, {RECORD} expects {record.sha256}")
    network = build_network(record.architecture, record.arguments)
    if not isinstance(network, SNGANGenerator):
        raise NetworkError(f"{folder / RECORD}: expected the architecture of a generator, got {record.architecture!r}")
    try:
        load_weights(network, load_safetensors(content), str(folder / WEIGHTS))
    except SafetensorError as error:
        raise NetworkError(f"{folder / WEIGHTS} is not a safetensors file: {error}") from error
    return network.eval().requires_grad_(False)


def tensor_names(blocks: int) -> dict[str, str]:
    """Mimicry's name of every tensor of a generator with so many up-blocks, and ours."""
    layers = {"l1": "project", f"b{blocks + 2}": "norm", f"c{blocks + 2}": "to_pixels"}
    for block in range(blocks):
        layers |= {f"block{block + 2}.{theirs}": f"blocks.{block}.{ours}" for theirs, ours in BLOCK_LAYERS.items()}
    return {
        f"{theirs}.{tensor}": f"{ours}.{tensor}"
        for theirs, ours in layers.items()
        for tensor in (NORM_TENSORS if "norm" in ours else LAYER_TENSORS)
    }


def _arguments(weights: Mapping[str, Tensor], blocks: int) -> dict[str, object]:
    """Read off the shapes; those that do not fit each other are found when the weights are loaded."""
    convolutions = [weights[f"blocks.{block}.conv1.weight"] for block in range(blocks)]
    return {
        "channels": len(weights["to_pixels.weight"]),
        "widths": [convolutions[0].shape[1], *(len(convolution) for convolution in convolutions)],
        "latent_size": weights["project.weight"].shape[1],
    }


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, alone or among what Mimicry saves beside it; no code in the file is run."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many unrelated classes on a damaged file
        raise CheckpointError(f"{path} is not a readable checkpoint: {error}") from error
    weights = content.get("model_state_dict", content) if isinstance(content, dict) else content
    if not isinstance(weights, dict) or not all(isinstance(weight, Tensor) for weight in weights.values()):
        raise CheckpointError(f"{path} holds no state dict: expected names of tensors, or `model_state_dict` with them")
    return weights
