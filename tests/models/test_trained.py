"""What a run keeps of its past, and the samples that `python -m models sample` makes of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from models.__main__ import main
from models.errors import CheckpointError, ConfigError
from models.networks import ARCHITECTURES
from models.training.program import train_recipe
from models.training.recipe import load_recipe
from models.training.run import kept_weights, load_checkpoint
from models.training.trained import TrainedEnergy, load_history, load_trained_energy
from tests.models.small_networks import SMALL

CPU = torch.device("cpu")
CENTRED = [
    "network={ name = 'centred' }",
    "sampler={ num_steps = 5, step_size = 0.2, temperature = 0.04 }",
    "implicit_run={ updates = 30, batch_size = 100, bank_size = 200, penalty = 0.0, adam_betas = [0.9, 0.999], "
    "spread_clip = [9.0, 9.0], learning_rates = 0.1, average_decay = 0.9, checkpoint_every = 30, keep_every = 10 }",
]


def train(folder: Path, *overrides: str, resume: bool = False) -> None:
    train_recipe(load_recipe("igebm_digits_conditional", [*CENTRED, *overrides]), folder, resume, resume, CPU)


@pytest.fixture(scope="module", autouse=True)
def small_networks() -> object:
    with pytest.MonkeyPatch.context() as patch:
        for name, network in SMALL.items():
            patch.setitem(ARCHITECTURES, name, network)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(folder)
    return folder


def centres(energy: TrainedEnergy) -> Tensor:
    found: Tensor = energy.network.get_parameter("centres").detach()
    return found


def test_a_run_keeps_its_averaged_weights_and_goes_on_as_if_it_had_not_stopped(run: Path, tmp_path: Path) -> None:
    kept = kept_weights(run)
    assert list(kept) == [10, 20, 30]
    assert torch.equal(load_file(kept[30])["centres"], load_checkpoint(run / "checkpoint.pt")["average"]["centres"])
    train(tmp_path, "implicit_run.updates=15")
    stale = kept_weights(tmp_path)[10].with_name("00000020.safetensors")
    stale.write_bytes(b"of a session that was killed after its checkpoint")
    train(tmp_path, resume=True)
    for update, path in kept_weights(tmp_path).items():
        assert torch.equal(load_file(path)["centres"], load_file(kept[update])["centres"])


def test_the_past_is_loaded_oldest_first_and_what_is_not_there_is_said(run: Path) -> None:
    energy = load_trained_energy(run / "checkpoint.pt", CPU)
    history = load_history(energy, run, 2)
    expected = [load_file(path)["centres"] for path in list(kept_weights(run).values())[1:]]
    assert all(torch.equal(centres(each), own) for each, own in zip(history, expected, strict=True))
    assert not torch.equal(expected[0], expected[1])
    labels, x = torch.tensor([3, 7]), torch.zeros(2, 1, 8, 8)
    assert torch.allclose(history[0](labels)(x), expected[0][labels].flatten(1).square().sum(1) / 2)
    with pytest.raises(CheckpointError, match="kept the weights of 3 updates .*asked for 4"):
        load_history(energy, run, 4)
    assert energy.label("7") == 7
    with pytest.raises(ConfigError, match="class '10': expected 0 to 9"):
        energy.label("10")


def sample(run: Path, out: Path, *options: str) -> int:
    command = ["sample", str(run / "checkpoint.pt"), "--start", "noise", "--device", "cpu", "--out", str(out)]
    return main([*command, *options])


def test_a_class_to_class_picture_has_a_column_for_each(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "through.png"
    assert sample(run, out, "--through", "3,0,3", "--count", "4", "--steps", "60") == 0
    with Image.open(out) as opened:
        found = np.asarray(opened.convert("L"))[::2, ::2].astype(float)
    assert found.shape == (4 * 9 + 1, 3 * 9 + 1)
    columns = [
        np.mean([found[1 + 9 * row : 9 + 9 * row, 1 + 9 * at : 9 + 9 * at] for row in range(4)], axis=0)
        for at in range(3)
    ]
    known = (centres(load_trained_energy(run / "checkpoint.pt", CPU))[:, 0].numpy() + 1) * 127.5
    nearest = [int(np.abs(known - column).mean((1, 2)).argmin()) for column in columns]
    assert nearest == [3, 0, 3]


@pytest.mark.parametrize("together", ["averaged", "switched"])
def test_an_ensembles_images_go_to_a_file_that_fidelity_reads(run: Path, tmp_path: Path, together: str) -> None:
    out = tmp_path / "samples.npz"
    several = ["--history", "2", "--together", together, "--calls", "8", "--steps", "20"]
    assert sample(run, out, "--classes", "5", "--count", "64", *several) == 0
    with np.load(out) as archive:
        images = torch.from_numpy(archive["images"]).float() / 127.5 - 1
    assert images.shape == (64, 1, 8, 8)
    history = load_history(load_trained_energy(run / "checkpoint.pt", CPU), run, 2)
    expected = torch.stack([centres(each)[5] for each in history]).mean(0)
    assert float((images.mean(0) - expected.clamp(-1, 1)).abs().mean()) < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--classes", "cat"), "class 'cat': expected 0 to 9"),
        (("--history", "9"), "asked for 9"),
        (("--together", "switched"), "expected --calls"),
        (("--through", "1,2", "--classes", "3"), "leave --classes 3 out"),
    ],
)
def test_what_can_not_be_sampled_is_said(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    assert sample(run, tmp_path / "x.png", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()
