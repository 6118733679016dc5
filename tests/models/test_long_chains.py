"""Long chains: the same numbers however often they are stopped, and snapshots of what they say."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save as save_safetensors
from torch import Tensor

from models.__main__ import main
from models.bundle import Bundle
from models.errors import BundleError, ChainDiverged, CheckpointError, ConfigError
from models.evaluation.chain_starts import generated_start, noise_start, uniform_start
from models.evaluation.chain_summaries import summaries_of
from models.evaluation.density_model import DensityModel, density_of_bundle, density_of_checkpoints
from models.evaluation.long_chains import LongChains, nats, read_snapshot, run_chains, snapshot_path
from models.gradients import Energy
from models.langevin import LangevinConfig
from models.networks import build_network
from models.streams import Stream
from models.training.run import save_checkpoint
from tests.conftest import ZOO

CPU = torch.device("cpu")
SAMPLER = LangevinConfig(num_steps=10, step_size=0.3, temperature=0.25)


def quadratic(x: Tensor) -> Tensor:
    return x.flatten(1).square().sum(1) / 2


def summarise(states: Tensor, energies: Tensor) -> Tensor:
    return torch.stack([energies, states.flatten(1).mean(1)], dim=1)


def run(folder: Path, energy: Energy = quadratic, snapshots: tuple[int, ...] = (30, 120), **changed: Any) -> Tensor:
    table = {"block": SAMPLER, "snapshots": snapshots, "record_every": 20, "seed": 3, **changed}
    start = torch.ones(6, 1, 4, 4)
    return run_chains(energy, start, LongChains(**table), summarise, folder, {"weights": "abc"})


class Killed:
    """The quadratic energy until its n-th call, where the run ends."""

    def __init__(self, calls: int, error: type[BaseException]) -> None:
        self.left, self.error = calls, error

    def __call__(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return quadratic(x)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensor]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)


# A kill leaves the checkpoint of step 30 or none; an interrupt one at the last stop. Calls 1 to 10 are of one block.
@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("calls", [0, 15, 36, 100, 127])
def test_a_stopped_run_continues_to_the_same_numbers(
    tmp_path: Path, whole: tuple[Path, Tensor], calls: int, error: type[BaseException]
) -> None:
    folder, trace = whole
    with pytest.raises(error):
        run(tmp_path, Killed(calls, error))
    assert torch.equal(run(tmp_path), trace)
    for step in (30, 120):
        before, after = (read_snapshot(snapshot_path(each, step)) for each in (folder, tmp_path))
        assert (after.step, torch.equal(before.states, after.states)) == (step, True)
        assert torch.equal(before.energies, after.energies)


def test_an_interrupt_loses_at_most_a_block(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Killed(100, KeyboardInterrupt))
    with safe_open(tmp_path / "checkpoint.safetensors", "pt") as file:
        step = int(file.metadata()["step"])
    # One call for the start, one a step, one a record or snapshot: 100 calls are 90 steps, four records, a snapshot.
    assert step == 90


def test_a_finished_run_is_left_alone_and_can_be_made_longer(tmp_path: Path, whole: tuple[Path, Tensor]) -> None:
    short = run(tmp_path, snapshots=(30, 60))
    assert torch.equal(run(tmp_path, Killed(0, AssertionError), snapshots=(30, 60)), short)
    assert torch.equal(run(tmp_path, snapshots=(30, 60, 120)), whole[1])
    assert torch.equal(run(tmp_path, Killed(0, AssertionError), snapshots=(30, 60)), short)
    with pytest.raises(CheckpointError, match=r"is at step 120 and kept no snapshot at \[90\]"):
        run(tmp_path, snapshots=(30, 90, 150))


def test_chains_of_another_run_are_refused(tmp_path: Path) -> None:
    run(tmp_path, snapshots=(30,))
    with pytest.raises(CheckpointError, match="seed: 3 -> 4"):
        run(tmp_path, seed=4)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="checkpoint.safetensors does not hold long chains"):
        run(tmp_path)
    states, both = {"states": torch.ones(1)}, {"states": torch.ones(1), "trace": torch.ones(1)}
    for tensors, complaint in ((states, "does not hold long chains"), (both, "belongs to another run")):
        (tmp_path / "checkpoint.safetensors").write_bytes(save_safetensors(tensors))
        with pytest.raises(CheckpointError, match=f"checkpoint.safetensors {complaint}"):
            run(tmp_path)


def test_snapshots_sample_the_discretised_chain_and_know_their_energies(tmp_path: Path) -> None:
    config = LongChains(block=SAMPLER, snapshots=(100, 200), record_every=50)
    trace = run_chains(quadratic, torch.zeros(400, 1, 8, 8), config, summarise, tmp_path, {})
    snapshots = [read_snapshot(snapshot_path(tmp_path, step)) for step in config.snapshots]
    drift = SAMPLER.drift_rate
    expected = SAMPLER.step_size**2 / (1 - (1 - drift) ** 2)
    for snapshot in snapshots:
        assert float(snapshot.states.var()) == pytest.approx(expected, rel=4 * math.sqrt(2 / snapshot.states.numel()))
        assert torch.equal(snapshot.energies, quadratic(snapshot.states) / SAMPLER.temperature)
    correlation = torch.corrcoef(torch.stack([snapshot.states.flatten() for snapshot in snapshots]))[0, 1]
    assert abs(float(correlation)) < 5 / math.sqrt(snapshots[0].states.numel())
    assert trace.shape == (5, 400, 2)
    assert torch.equal(trace[2, :, 0], snapshots[0].energies)
    assert not trace[0].any()


def test_a_chain_without_a_finite_energy_stops_and_keeps_what_was_good(tmp_path: Path) -> None:
    with pytest.raises(ChainDiverged, match=r"chain \d has energy .* at step (1[0-9]|[2-9])0:"):
        run(tmp_path, lambda x: -x.flatten(1).pow(4).sum(1) * 0.003, snapshots=(10, 200))
    assert read_snapshot(snapshot_path(tmp_path, 10)).energies.isfinite().all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"snapshots": (15, 120)}, r"multiples of 10 steps, got \[15\]"),
        ({"record_every": 25}, r"multiples of 10 steps, got \[25\]"),
        ({"snapshots": (120, 30)}, r"ascend from at least 1, got \[120, 30\]"),
    ],
)
def test_stops_lie_at_the_ends_of_blocks(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **changed)


def test_components_are_the_data_s_main_axes() -> None:
    """Images that vary along two known patterns: the first three times as much as the second."""
    patterns = torch.linalg.qr(torch.randn(16, 2, generator=torch.Generator().manual_seed(0))).Q.T
    places = torch.randn(500, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([3.0, 1.0])
    images = (0.5 + places @ patterns).view(500, 1, 4, 4)
    summaries = summaries_of(images, 2)
    assert summaries.names == ("energy", "mean pixel", "component 1", "component 2")
    found = summaries(images, torch.arange(500.0))
    assert torch.equal(found[:, 0], torch.arange(500.0))
    for index in (0, 1):
        assert float((summaries.components[index] @ patterns[index]).abs()) > 0.98
        assert float(found[:, 2 + index].std()) == pytest.approx(float(places[:, index].std()), rel=0.05)
    with pytest.raises(ValueError, match="500 images of 16 pixels do not have 17 components"):
        summaries_of(images, 17)


def test_starts_have_their_distributions_and_generated_ones_follow_the_latents() -> None:
    stream, shape = Stream(("start",)), (500, 1, 4, 4)
    noise, uniform = noise_start(shape, stream, CPU), uniform_start(shape, stream, CPU)
    assert (float(noise.mean()), float(noise.var())) == (pytest.approx(0.0, abs=0.05), pytest.approx(1.0, abs=0.08))
    assert (float(uniform.mean()), float(uniform.var())) == (pytest.approx(0, abs=0.03), pytest.approx(1 / 3, abs=0.02))
    assert float(uniform.abs().max()) <= 1.0
    mixing = torch.nn.Linear(3, 16)
    made = generated_start(lambda z: mixing(z).tanh().view(-1, 1, 4, 4), 3, 500, stream, CPU)
    assert torch.allclose(made.flatten(1), mixing(stream.normal((500, 3))).tanh(), atol=1e-6)
    assert not made.requires_grad


def test_the_joint_temperature_leaves_the_gaussian_term_alone() -> None:
    f, prior = (build_network("light", {"channels": 1, "image_size": 8, "width": 8}) for _ in range(2))
    x = torch.rand(3, 1, 8, 8)
    model = DensityModel(((f, 1e-2), (prior, 1e-3)), 0.15, SAMPLER, "digits", "")
    energy, temperature = model.target(1.01)
    expected = (f(x) / 1e-2 + prior(x) / 1e-3) / 1.01 + x.flatten(1).square().sum(1) / (2 * 0.15**2)
    assert torch.allclose(nats(energy, x, temperature), expected, rtol=1e-5)
    alone, temperature = DensityModel(((f, 1e-2),), None, SAMPLER, "digits", "").target(1.01)
    assert (alone, temperature) == (f, pytest.approx(1.01e-2))


def test_densities_of_checkpoints_add_their_averaged_energies(tmp_path: Path, digits_bundle: Bundle) -> None:
    manifest = digits_bundle.manifest
    assert manifest.training is not None
    recipe, weights = dict(manifest.training.energy.recipe), digits_bundle.defence.energy.state_dict()
    other = {**recipe, "sampler": {**recipe["sampler"], "temperature": 0.5}}
    paths = [tmp_path / "f.pt", tmp_path / "prior.pt"]
    for path, each in zip(paths, (recipe, other), strict=True):
        save_checkpoint(path, {"recipe": json.dumps(each), "average": weights})
    x = torch.rand(3, 1, 8, 8)
    energy, temperature = density_of_checkpoints(paths, None, CPU).target()
    f = digits_bundle.defence.energy(x)
    assert torch.allclose(nats(energy, x, temperature), f / 1e-3 + f / 0.5)
    save_checkpoint(paths[1], {"recipe": json.dumps({**recipe, "data": {"name": "mnist"}}), "average": weights})
    with pytest.raises(ConfigError, match="the same data, got digits, mnist"):
        density_of_checkpoints(paths, None, CPU)
    save_checkpoint(paths[1], {"recipe": json.dumps({"kind": "classifier"}), "average": weights})
    with pytest.raises(CheckpointError, match=r"prior.pt holds a recipe of kind 'classifier', expected an energy's"):
        density_of_checkpoints(paths, None, CPU)


def test_a_bundle_is_a_density_at_its_training_s_temperature(tmp_path: Path) -> None:
    model = density_of_bundle(ZOO / "digits-midrun", None, CPU)
    assert (model.target()[1], model.data, model.sampler.step_size) == (1e-3, "digits", 0.03)
    manifest = json.loads((ZOO / "digits-midrun" / "manifest.json").read_text())
    del manifest["training"]
    for file in (ZOO / "digits-midrun").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="does not say how it was trained"):
        density_of_bundle(tmp_path, None, CPU)


def test_chains_of_digits_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From noise, hundreds of steps fall from far above the data's energies to near them; it may be run again."""
    command = ["chains", "--bundle", str(ZOO / "digits-midrun"), "--chains", "16", "--images", "100", "--device", "cpu"]
    command += ["--block", "20", "--out", str(tmp_path)]
    assert main([*command, "--steps", "110"]) == 2
    assert "multiples of 20 steps, got [110]" in capsys.readouterr().err
    assert main([*command, "--steps", "200"]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    first, last = result["snapshots"]
    assert (first["step"], last["step"]) == (100, 200)
    images = {"train": result["data"]["train"], "test": result["data"]["test"]}
    assert images["train"]["count"] == images["test"]["count"] == 100
    start = nats(density_of_bundle(ZOO / "digits-midrun", None, CPU).target()[0], torch.randn(16, 1, 8, 8), 1e-3)
    assert float(start.mean()) > last["energies"]["mean"] + 100
    assert len(result["diagnostics"]) == 0  # six points of the second half are too few
    before = result.pop("commit"), (tmp_path / "snapshot-00000200.safetensors").stat().st_mtime_ns
    assert main([*command, "--steps", "200"]) == 0
    again = json.loads((tmp_path / "result.json").read_text())
    assert (again.pop("commit"), (tmp_path / "snapshot-00000200.safetensors").stat().st_mtime_ns) == before
    assert again == result
    assert {"histograms.png", "energies.png", "images-00000100.png"} <= {path.name for path in tmp_path.iterdir()}
