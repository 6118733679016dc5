"""Is the life cycle's long-run energy a density? Its chains against data, and what test images are worth under it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.config import Frozen
from models.data import load_dataset
from models.errors import DataError
from models.evaluation.ais import Annealing
from models.evaluation.annealing_bases import GaussianBase
from models.evaluation.annealing_run import annealing_seconds
from models.evaluation.density_model import DensityModel, density_of_checkpoints
from models.evaluation.density_run import ENERGIES, HISTOGRAMS, anneal_likelihood, compare_chains
from models.evaluation.long_chains import (
    LongChains,
    read_snapshot,
    snapshot_path,
    spent_seconds,
)
from models.pixels import from_uint8
from models.reproduce.result import Finding, Number
from models.training.recipe import EnergyRecipe, load_recipe

WEIGHTS = Path(__file__).parents[1] / "results" / "life-cycle"
CHAINS, ANNEALING = "chains", "annealing"
PICTURES = (f"{CHAINS}/{HISTOGRAMS}", f"{CHAINS}/{ENERGIES}")


class Size(Frozen):
    """How long chains and annealing are; `weights` holds long.safetensors and prior.safetensors."""

    weights: Path = WEIGHTS
    chains: int = 64
    steps: tuple[int, ...] = (100, 1_000, 10_000, 100_000)
    block: int = 50
    record_every: int = 100
    rungs: int = 4000
    seed: int = 0


FULL = Size()


def remake(folder: Path, device: torch.device, size: Size = FULL) -> Finding:
    """Run chains from test images, anneal to their ends and back; what is there already is kept."""
    paths = [size.weights / f"{name}.safetensors" for name in ("long", "prior")]
    if missing := [str(path) for path in paths if not path.exists()]:
        raise DataError(f"{', '.join(missing)}: missing; `python -m models reproduce life-cycle --publish` makes them")
    recipe = load_recipe("digits_life_long")
    assert isinstance(recipe, EnergyRecipe)
    assert recipe.prior is not None
    model = density_of_checkpoints(paths, recipe.prior.tau, device)
    sets = {name: load_dataset(model.data, name).images for name in ("train", "test")}
    chains = _chains(model, sets, recipe.learning.data_noise, size, folder / CHAINS, device)
    annealed = _annealed(model, sets["test"], size, folder, device)
    return Finding(
        title="The long-run energy as a density",
        source="EBM Life Cycle's long-run energies: the paper shows chains of 100,000 steps and more, no likelihood.",
        numbers=tuple(_numbers(chains, annealed, size)),
        setting=(
            f"The published energy of `life-cycle`: {size.chains} chains from test images, {size.steps[-1]:,} steps; "
            f"annealing over {size.rungs:,} densities with {size.chains} particles, up from the Gaussian and back from "
            "where the chains ended."
        ),
        why=(
            "The paper has no such numbers. A density's chains would keep its data's energies, a gap of 0, and the "
            "chains' ends are no exact samples, so that the upper end of log Z is an estimate and no bound."
        ),
        pictures=PICTURES,
        cpu_hours=round((spent_seconds(folder / CHAINS) + annealing_seconds(folder / ANNEALING)) / 3600, 2),
        details={"size": size.model_dump(mode="json", exclude={"weights"}), "chains": chains, "likelihood": annealed},
    )


def _chains(
    model: DensityModel, sets: dict[str, Tensor], noise: float, size: Size, folder: Path, device: torch.device
) -> dict[str, Any]:
    """Chains from test images against data with learning's noise."""
    block = model.sampler.model_copy(update={"num_steps": size.block, "temperature": model.target()[1]})
    config = LongChains(block=block, snapshots=size.steps, record_every=size.record_every, seed=size.seed)
    images = {name: from_uint8(each).to(device) for name, each in sets.items()}
    identity = {"weights": model.digest, "tau": model.tau, "start": "test"}
    return compare_chains(model, images, images["test"][: size.chains], config, noise, identity, folder)


def _annealed(model: DensityModel, test: Tensor, size: Size, folder: Path, device: torch.device) -> dict[str, Any]:
    """Test images' likelihood, walking back from the chains' ends."""
    assert model.tau is not None
    config = Annealing(base=GaussianBase(scale=model.tau), particles=size.chains, rungs=size.rungs, seed=size.seed)
    ends = read_snapshot(snapshot_path(folder / CHAINS, size.steps[-1])).states.to(device)
    identity = {"weights": model.digest, "tau": model.tau, "steps": size.steps[-1]}
    return anneal_likelihood(model, {"test": test}, ends, config, identity, folder / ANNEALING, device)


def _numbers(chains: dict[str, Any], annealed: dict[str, Any], size: Size) -> Iterator[Number]:
    last = chains["snapshots"][-1]["against"]["test"]
    error = {"ours_spread": round(last["gap_error"], 2), "spread": "standard error over chains and images"}
    what = f"U of test images less that of chains after {size.steps[-1]:,} steps"
    yield Number(what=what, paper=None, ours=round(last["gap"], 2), unit="nats", **error)
    for each in chains["diagnostics"]:
        if each["rhat"] is not None:
            yield Number(what=f"split R-hat of chains' {each['name']}", paper=None, ours=round(each["rhat"], 3))
    for name, end in annealed["log_z"].items():
        what = f"log Z, {name} end ({end['is']})"
        spread = {"ours_spread": round(end["error"], 2), "spread": "standard error over particles"}
        yield Number(what=what, paper=None, ours=round(end["value"], 2), unit="nats", **spread)
    for bound, end in (("at_most", "below"), ("at_least", "above")):
        bits = round(annealed["likelihood"]["test"][bound]["bits_per_dimension"], 3)
        yield Number(what=f"test images, by log Z from {end}", paper=None, ours=bits, unit="bits a pixel")
