"""Generators of PyTorch Mimicry as ours: the same images, every name accounted for, and no code run."""

import json
import math
import pickle
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from models.__main__ import main
from models.errors import CheckpointError, NetworkError
from models.networks.conversion import RECORD, WEIGHTS, convert_generator, load_generator

WIDTHS = {32: [8, 8, 8, 8], 64: [32, 16, 8, 4, 2], 128: [32, 32, 16, 8, 4, 2]}
LATENT = 20

State = dict[str, Tensor]


def mimicry_state(side: int, bottom: int = 4) -> State:
    """The tensors of torch_mimicry.nets.sngan.SNGANGenerator32, 64 and 128, by their names there."""
    widths, g = WIDTHS[side], torch.Generator().manual_seed(side)
    state: State = {}

    def layer(name: str, *shape: int) -> None:
        state[f"{name}.weight"] = torch.randn(shape, generator=g) / math.prod(shape[1:]) ** 0.5
        state[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=g)

    def norm(name: str, channels: int) -> None:
        state[f"{name}.weight"] = torch.rand(channels, generator=g) + 0.5
        state[f"{name}.bias"] = 0.3 * torch.randn(channels, generator=g)
        state[f"{name}.running_mean"] = 0.1 * torch.randn(channels, generator=g)
        state[f"{name}.running_var"] = 2e-3 * torch.rand(channels, generator=g) + 1e-3  # epsilon is seen
        state[f"{name}.num_batches_tracked"] = torch.tensor(100)

    layer("l1", bottom**2 * widths[0], LATENT)
    for number, (inputs, outputs) in enumerate(pairwise(widths), start=2):
        layer(f"block{number}.c1", outputs, inputs, 3, 3)
        layer(f"block{number}.c2", outputs, outputs, 3, 3)
        norm(f"block{number}.b1", inputs)
        norm(f"block{number}.b2", outputs)
        layer(f"block{number}.c_sc", outputs, inputs, 1, 1)
    norm(f"b{len(widths) + 1}", widths[-1])
    layer(f"c{len(widths) + 1}", 3, widths[-1], 3, 3)
    return state


def defined_forward(state: State, z: Tensor, epsilon: float = 1e-5) -> Tensor:
    """The generator of Miyato et al. (2018) with bilinear upsampling, written from its definition in float64."""
    state = {name: each.double() for name, each in state.items()}

    def norm(name: str, x: Tensor) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + epsilon).sqrt() * weight + bias

    def convolve(name: str, x: Tensor) -> Tensor:
        weight = state[f"{name}.weight"]
        return functional.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def double(x: Tensor) -> Tensor:
        for axis in (2, 3):
            before = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, x.shape[axis] - 1)], axis)
            after = torch.cat([x.narrow(axis, 1, x.shape[axis] - 1), x.narrow(axis, x.shape[axis] - 1, 1)], axis)
            pairs = [0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after]
            x = torch.stack(pairs, axis + 1).flatten(axis, axis + 1)
        return x

    blocks = sum(name.endswith("c1.weight") for name in state)
    x = (z.double() @ state["l1.weight"].T + state["l1.bias"]).reshape(len(z), -1, 4, 4)
    for name in (f"block{number}" for number in range(2, blocks + 2)):
        hidden = convolve(f"{name}.c1", double(norm(f"{name}.b1", x).relu()))
        hidden = convolve(f"{name}.c2", norm(f"{name}.b2", hidden).relu())
        x = hidden + convolve(f"{name}.c_sc", double(x))
    return torch.tanh(convolve(f"c{blocks + 2}", norm(f"b{blocks + 2}", x).relu())).float()


def saved(state: object, path: Path) -> Path:
    torch.save(state, path)
    return path


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    convert_generator(saved(mimicry_state(32), tmp_path / "netG.pth"), tmp_path / "generator")
    return tmp_path / "generator"


@pytest.mark.parametrize("side", [32, 64, 128])
def test_a_converted_generator_makes_the_images_of_its_definition(tmp_path: Path, side: int) -> None:
    state = mimicry_state(side)
    checkpoint = {
        "model_state_dict": state,
        "optimizer_state_dict": {"state": {}, "param_groups": []},
        "global_step": 9,
    }
    convert_generator(saved(checkpoint, tmp_path / "netG.pth"), tmp_path / "generator")
    network = load_generator(tmp_path / "generator")
    z = torch.randn(2, network.latent_size, generator=torch.Generator().manual_seed(1))
    images = network(z)
    assert images.shape == (2, 3, side, side)
    assert float(images.std()) > 0.1
    torch.testing.assert_close(images, defined_forward(state, z), atol=2e-4, rtol=0)
    # Keras' epsilon of batch norm, with weights that were trained with PyTorch's, gives other images.
    assert float((images - defined_forward(state, z, epsilon=1e-3)).abs().max()) > 0.02


def test_a_file_of_the_old_format_and_a_bare_state_dict_convert_too(tmp_path: Path, converted: Path) -> None:
    torch.save(mimicry_state(32), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    record = convert_generator(tmp_path / "old.pth", tmp_path / "old")
    assert record.converted_from == "old.pth"
    assert (tmp_path / "old" / WEIGHTS).read_bytes() == (converted / WEIGHTS).read_bytes()


def test_a_loaded_generator_is_frozen(converted: Path) -> None:
    network = load_generator(converted)
    assert not network.training
    assert not any(each.requires_grad for each in network.parameters())
    before = {name: each.clone() for name, each in network.state_dict().items()}
    assert not network(torch.randn(4, LATENT)).requires_grad
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())


def test_missing_and_unexpected_names_are_all_listed(tmp_path: Path) -> None:
    state = mimicry_state(32)
    del state["block3.c_sc.weight"], state["b5.running_var"]
    state["block2.c1.sn_u"] = torch.ones(1)
    with pytest.raises(NetworkError) as caught:
        convert_generator(saved(state, tmp_path / "netG.pth"), tmp_path / "generator")
    for part in ("netG.pth", "missing block3.c_sc.weight", "missing b5.running_var", "unexpected block2.c1.sn_u"):
        assert part in str(caught.value)
    assert not (tmp_path / "generator").exists()


def test_a_discriminator_and_a_generator_of_48_pixels_are_refused(tmp_path: Path) -> None:
    discriminator = {"block1.c1.weight": torch.ones(8, 3, 3, 3), "l5.weight": torch.ones(1, 8)}
    with pytest.raises(NetworkError, match=r"missing l1.weight.*unexpected block1.c1.weight; unexpected l5.weight"):
        convert_generator(saved(discriminator, tmp_path / "netD.pth"), tmp_path / "generator")
    with pytest.raises(NetworkError, match=r"project.weight has shape \[288, 20\], expected \[128, 20\]"):
        convert_generator(saved(mimicry_state(32, bottom=6), tmp_path / "netG48.pth"), tmp_path / "generator")


class Intruder:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    path, traces = tmp_path / "netG.pth", tmp_path / "was_here"
    saved({**mimicry_state(32), "intruder": Intruder(traces)}, path)
    with pytest.raises(CheckpointError, match=r"netG.pth is not a readable checkpoint"):
        convert_generator(path, tmp_path / "generator")
    path.write_bytes(pickle.dumps(Intruder(traces)))
    with pytest.raises(CheckpointError):
        convert_generator(path, tmp_path / "generator")
    assert not traces.exists()


@pytest.mark.parametrize("content", [[1, 2], {"model_state_dict": {"l1.weight": 3}}, torch.ones(2)])
def test_a_file_without_weights_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(CheckpointError, match="holds no state dict"):
        convert_generator(saved(content, tmp_path / "netG.pth"), tmp_path / "generator")


def test_a_folder_that_was_altered_is_refused(converted: Path, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"nowhere holds no generator: .*convert-generator"):
        load_generator(tmp_path / "nowhere")
    record = json.loads((converted / RECORD).read_text())
    (converted / RECORD).write_text(json.dumps(record | {"architecture": "light", "arguments": {}}))
    with pytest.raises(NetworkError, match="expected the architecture of a generator, got 'light'"):
        load_generator(converted)
    (converted / RECORD).write_text(json.dumps(record | {"size": 32}))
    with pytest.raises(NetworkError, match="size"):
        load_generator(converted)
    (converted / RECORD).write_text(json.dumps(record))
    weights = bytearray((converted / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (converted / WEIGHTS).write_bytes(weights)
    with pytest.raises(NetworkError, match=f"SHA-256 .* expects {record['sha256']}"):
        load_generator(converted)


def test_the_command_converts_and_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = saved(mimicry_state(32), tmp_path / "netG.pth"), tmp_path / "generator"
    assert main(["convert-generator", str(path), "--out", str(out)]) == 0
    assert "[8, 8, 8, 8]" in capsys.readouterr().out
    assert load_generator(out).image_size == 32
    assert main(["convert-generator", str(tmp_path / "absent.pth"), "--out", str(out)]) == 2
    assert "absent.pth" in capsys.readouterr().err
