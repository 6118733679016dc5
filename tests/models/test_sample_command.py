"""python -m models sample, from a bundle and from the generator of a short run on the digits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.__main__ import main
from models.langevin import LangevinConfig, run_langevin
from models.networks import ARCHITECTURES, build_network
from models.noise import SeededNoise
from models.pixels import to_uint8
from models.training.diagnostics import image_grid
from models.training.program import train_recipe
from models.training.recipe import EnergyRecipe, load_recipe
from models.training.run import load_checkpoint
from tests.conftest import ZOO
from tests.models.small_networks import SMALL
from tests.models.test_energy_learning import GENERATOR, SHORT


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, network in SMALL.items():
        monkeypatch.setitem(ARCHITECTURES, name, network)


def sample(source: Path, out: Path, *options: str) -> int:
    return main(["sample", str(source), "--count", "8", "--device", "cpu", "--out", str(out), *options])


def pixels(picture: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("prior", [None, 0.2])
def test_generators_images_and_where_their_chains_come_to(tmp_path: Path, prior: float | None) -> None:
    """Averaged networks, the run's own potential, and noise that the latents do not share."""
    terms = [] if prior is None else [f"prior={{ tau = {prior} }}"]
    recipe = load_recipe("digits_short", [*SHORT, GENERATOR, "short_run.average_decay=0.5", *terms])
    assert isinstance(recipe, EnergyRecipe)
    train_recipe(recipe, tmp_path, False, False, torch.device("cpu"))
    out = tmp_path / "pair.png"
    assert sample(tmp_path / "checkpoint.pt", out, "--start", "generator", "--steps", "5") == 0

    state = load_checkpoint(tmp_path / "checkpoint.pt")
    generator = torch.Generator().manual_seed(0)
    maker, network = SMALL["small_generator"]().eval(), build_network("light", recipe.network.arguments).eval()
    maker.load_state_dict(state["generator"]["average"])
    network.load_state_dict(state["average"])
    with torch.no_grad():
        starts = maker(torch.randn(8, 4, generator=generator))
    config = LangevinConfig(num_steps=5, step_size=recipe.sampler.step_size, temperature=1.0)

    def energy(x: torch.Tensor) -> torch.Tensor:
        gaussian = 0.0 if prior is None else x.flatten(1).square().sum(1) / (2 * prior**2)
        return network(x) / recipe.sampler.temperature + gaussian

    ends, _ = run_langevin(energy, starts, config, randn_like=SeededNoise(generator))
    with Image.open(out) as opened:
        found = pixels(opened).astype(int)
    width = pixels(image_grid(starts)).shape[1]
    assert found.shape[1] > 2 * width
    for half, images in ((found[:, :width], starts), (found[:, -width:], ends)):
        assert np.abs(half - pixels(image_grid(images))).max() <= 1
    assert (found[:, width:-width] == 255).all()
    first, archive = out.read_bytes(), tmp_path / "ends.npz"
    assert sample(tmp_path / "checkpoint.pt", archive, "--start", "generator", "--steps", "5") == 0
    written = np.load(archive)["images"].astype(int)
    assert np.abs(written - to_uint8(ends).numpy()).max() <= 1
    assert sample(tmp_path / "checkpoint.pt", out, "--start", "generator", "--steps", "5", "--seed", "1") == 0
    assert out.read_bytes() != first


def test_what_holds_no_generator_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = "initialiser={ kind = 'data' }"
    train_recipe(load_recipe("digits_short", [*SHORT, data]), tmp_path, False, False, torch.device("cpu"))
    run, out = tmp_path / "checkpoint.pt", tmp_path / "x.png"
    assert sample(run, out, "--start", "generator") == 2
    assert "chains start from data, there is no generator" in capsys.readouterr().err
    assert sample(run, out) == 2
    assert "expected a bundle for noise and data" in capsys.readouterr().err
    assert sample(ZOO / "digits-midrun", out, "--start", "generator") == 2
    assert "a run's checkpoint.pt for generator" in capsys.readouterr().err
    assert not out.exists()


def test_a_bundles_chains_start_from_noise_or_data(tmp_path: Path) -> None:
    """One step moves them little, so that the starts can be told apart."""
    for start in ("noise", "data"):
        assert sample(ZOO / "digits-midrun", tmp_path / f"{start}.png", "--start", start, "--steps", "1") == 0
    pictures = {}
    for start in ("noise", "data"):
        with Image.open(tmp_path / f"{start}.png") as opened:
            assert opened.size == (2 * (8 * 9 + 1), 2 * 10)
            pictures[start] = pixels(opened)
    # Digits are black at their edges, and noise is nowhere.
    assert (pictures["data"] < 64).mean() > 0.3
    assert (pictures["noise"] == 0).mean() < 0.2
