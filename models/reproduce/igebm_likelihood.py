"""What an energy that learned from noise is worth as a density: log Z by annealing (IGEBM, arXiv 1903.08689).

A trained energy says at which temperature its chains ran; whether it is a density of the data there, or at another
temperature, is what training images are asked.

FOLDER/
  energy                    the training run
  chains-TIMES, walks-TIMES  long chains, and annealing to their ends, at so many times learning's temperature
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.config import Frozen
from models.data import load_dataset
from models.evaluation.ais import Annealing
from models.evaluation.annealing_bases import BoxBase
from models.evaluation.annealing_run import annealing_seconds
from models.evaluation.chain_starts import uniform_start
from models.evaluation.density_model import DensityModel, density_of_checkpoints
from models.evaluation.density_run import anneal_likelihood, compare_chains
from models.evaluation.likelihood import likelihood
from models.evaluation.long_chains import LongChains, read_snapshot, snapshot_path, spent_seconds
from models.pixels import dequantise, from_uint8
from models.reproduce.igebm_likelihood_plot import plot_likelihood
from models.reproduce.result import Finding, Number
from models.streams import Stream
from models.training.program import train_recipe
from models.training.recipe import load_energy_recipe
from models.training.run import load_trained

FIGURE = "likelihood.png"
ERROR = "standard error over particles"
LONGEST_STEP = 0.05
"""Of chains in a box that is 2 wide."""
AGREEMENT = 0.5
"""Bits a pixel between both ends of log Z, up to which they are taken to have found it."""
UNIFORM = math.log2(256)
Found = Mapping[float, dict[str, Any]]
"""By multiple of learning's temperature: results of chains ("chains") and of annealing ("likelihood")."""


class Size(Frozen):
    """How much of it two CPU cores can carry.

    Args:
        times: temperatures of the density, in multiples of learning's, which is the first.
        chains: long chains, and particles each way, `steps` and `rungs` long.
        drift: of the chains' steps, in multiples of learning's: shorter ones leave less to discretisation.
    """

    recipe: str = "igebm_digits"
    overrides: tuple[str, ...] = ()
    times: tuple[float, ...] = (1, 10, 30, 100, 300, 3000)
    chains: int = 32
    steps: int = 2000
    block: int = 100
    drift: float = 0.25
    rungs: int = 500
    leapfrog_steps: int = 3
    seed: int = 0


FULL = Size()


def remake(folder: Path, device: torch.device, size: Size = FULL) -> Finding:
    """Train, run chains from noise, anneal to their ends and back; what is there already is kept."""
    recipe = load_energy_recipe(size.recipe, size.overrides)
    train_recipe(recipe, folder / "energy", resume=True, amend=False, device=device)
    checkpoint = folder / "energy" / "checkpoint.pt"
    model = density_of_checkpoints([checkpoint], None, device)
    sets = {name: load_dataset(model.data, name).images for name in ("train", "test")}
    found = {times: _measured(model, times, sets, size, folder, device) for times in size.times}
    gaussian = gaussian_bits(sets["train"], sets["test"], size.seed)
    levels = len(sets["train"].unique())
    plot_likelihood(found, {"Gaussian": gaussian, "uniform": UNIFORM}, folder / FIGURE)
    seconds = load_trained(checkpoint, "energy")[0]["cpu_seconds"]
    for times in size.times:
        seconds += spent_seconds(folder / f"chains-{times:g}") + annealing_seconds(folder / f"walks-{times:g}")
    return Finding(
        title="Likelihood of digits",
        source=(
            "IGEBM's appendix on likelihood: bounds by annealed importance sampling for Gaussian mixtures, MNIST and "
            "CIFAR-10, in figures whose values we do not have."
        ),
        numbers=(*_numbers(found), *_others(gaussian, levels)),
        setting=_setting(size, model, recipe.learning.updates),
        why=explain(found, gaussian, levels),
        pictures=(FIGURE, *(f"chains-{times:g}/images-{size.steps:08d}.png" for times in _told(found))),
        cpu_hours=round(seconds / 3600, 2),
        details={"size": size.model_dump(mode="json"), **{f"{times:g}": each for times, each in found.items()}},
    )


def _measured(
    model: DensityModel, times: float, sets: dict[str, Tensor], size: Size, folder: Path, device: torch.device
) -> dict[str, Any]:
    """Chains from noise and annealing of the density at another temperature."""
    rate, temperature = size.drift * model.sampler.drift_rate, times * model.sampler.temperature
    (network, _), *_ = model.terms
    changed = replace(model, terms=((network, temperature),))
    step_size = min(LONGEST_STEP, math.sqrt(2 * temperature * rate))
    table = {"num_steps": size.block, "temperature": temperature, "step_size": step_size}
    config = LongChains(
        block=model.sampler.model_copy(update=table),
        snapshots=(size.steps,),
        record_every=size.block,
        seed=size.seed,
    )
    images = {name: from_uint8(each).to(device) for name, each in sets.items()}
    shape = (size.chains, *sets["test"].shape[1:])
    start = uniform_start(shape, Stream((size.seed, "likelihood")), device)
    run = folder / f"chains-{times:g}"
    chains = compare_chains(changed, images, start, config, 0.0, {"weights": model.digest}, run)
    ends = read_snapshot(snapshot_path(run, size.steps)).states.to(device)
    annealing = Annealing(
        base=BoxBase(),
        particles=size.chains,
        rungs=size.rungs,
        leapfrog_steps=size.leapfrog_steps,
        seed=size.seed,
    )
    identity = {"weights": model.digest, "temperature": temperature, "steps": size.steps}
    walks = folder / f"walks-{times:g}"
    return {"chains": chains, "likelihood": anneal_likelihood(changed, sets, ends, annealing, identity, walks, device)}


def gaussian_bits(train: Tensor, test: Tensor, seed: int) -> float:
    """Bits a pixel of test images, uint8 [N, C, H, W] dequantised, under a Gaussian fitted to training images.

    Its covariance is shrunk towards a multiple of 1 (Ledoit and Wolf 2004): some pixels never change in training.
    """
    from sklearn.covariance import LedoitWolf  # of the `train` extra, as the digits are

    x, y = (dequantise(each, torch.Generator().manual_seed(seed)).flatten(1).double() for each in (train, test))
    fitted = LedoitWolf().fit(x.numpy())
    potential = torch.from_numpy(fitted.mahalanobis(y.numpy())) / 2
    dimensions = x.shape[1]
    log_z = 0.5 * (dimensions * math.log(2 * math.pi) + float(torch.from_numpy(fitted.covariance_).logdet()))
    return likelihood(potential, log_z, dimensions).bits_per_dimension


def agreed(found: Found) -> float | None:
    """Of the temperatures at which both ends of log Z agree, the one where training images are worth most."""
    ends = {times: _bits(each, "train") for times, each in found.items()}
    near = {times: least for times, (most, least) in ends.items() if abs(least - most) <= AGREEMENT}
    return min(near, key=lambda times: near[times]) if near else None


def _bits(each: Mapping[str, Any], name: str) -> tuple[float, float]:
    """Bits a pixel of the images of that name by log Z from below, and from above."""
    ends = each["likelihood"]["likelihood"][name]
    return ends["at_most"]["bits_per_dimension"], ends["at_least"]["bits_per_dimension"]


def _told(found: Found) -> list[float]:
    """The temperatures whose numbers stand on the page: learning's, and the agreed one."""
    first, best = next(iter(found)), agreed(found)
    return [first] if best is None or best == first else [first, best]


def _numbers(found: Found) -> Iterator[Number]:
    for times in _told(found):
        at = f"{times:g} x learning's temperature"
        for name, end in found[times]["likelihood"]["log_z"].items():
            what, error = f"{at}: log Z, {name} end ({end['is']})", round(end["error"], 2)
            ours = round(end["value"], 2)
            yield Number(what=what, paper=None, ours=ours, ours_spread=error, spread=ERROR, unit="nats")
        for name in ("train", "test"):
            for end, bits in zip(("below", "above"), _bits(found[times], name), strict=True):
                what = f"{at}: {name} images, by log Z from {end}"
                yield Number(what=what, paper=None, ours=round(bits, 3), unit="bits a pixel")


def _others(gaussian: float, levels: int) -> Iterator[Number]:
    others = {
        "a Gaussian fitted to training images": gaussian,
        "uniform over 256 levels": UNIFORM,
        f"uniform over the {levels} levels that occur": math.log2(levels),
    }
    for name, bits in others.items():
        yield Number(what=f"test images, {name}", paper=None, ours=round(bits, 3), unit="bits a pixel")


def _setting(size: Size, model: DensityModel, updates: int) -> str:
    return (
        f"{size.recipe}, {updates:,} updates, on scikit-learn's digits of 8x8 pixels. At each of "
        f"{', '.join(f'{times:g}' for times in size.times)} times learning's temperature, "
        f"{model.sampler.temperature:g}: {size.chains} chains of {size.steps:,} steps from noise, in a box, "
        f"and annealing over {size.rungs:,} densities with {size.chains} particles, up from the uniform one and back "
        "from where the chains ended. Pixels are dequantised with noise of one of 256 levels, as in learning; the "
        "density is that in the box where they lie. The Gaussian's covariance is shrunk (Ledoit and Wolf)."
    )


def explain(found: Found, gaussian: float, levels: int) -> str:
    """Whether log Z was found at learning's temperature, where it was, and what test images are worth there."""
    first, best = next(iter(found)), agreed(found)
    ends = {name: end["value"] for name, end in found[first]["likelihood"]["log_z"].items()}
    said = [
        f"Both ends of log Z at learning's temperature are {ends['upper'] - ends['lower']:,.0f} nats apart"
        + (": annealing has not found it, and the images' worth is unknown." if best != first else ".")
    ]
    if min(_bits(found[first], "test")) < 0:
        said.append(
            "Fewer than 0 bits a pixel are impossible for levels of pixels, so an end that says so is wrong: particles "
            "from the uniform density miss the deep and narrow modes in which chains end."
        )
    if best is None:
        said.append(f"At no temperature do they agree to within {AGREEMENT:g} bits a pixel.")
    else:
        most, least = _bits(found[best], "test")
        verdict = "better than" if least < gaussian else "not better than" if most > gaussian else "about as good as"
        said.append(
            f"At {best:g} times that temperature, of those where the ends agree to within {AGREEMENT:g} bits the one "
            f"at which training images are worth most, test images cost {most:.2f} to {least:.2f} bits a pixel, "
            f"{verdict} the Gaussian's {gaussian:.2f}."
        )
    said.append(
        f"The digits have only {levels} levels, {math.log2(levels):.2f} bits even for who knows nothing else; noise of "
        "one of 256 levels leaves them as thin peaks, which neither density shows. Learning compares chains of a few "
        "hundred steps with data and never sees log Z: it makes samples, not a density."
    )
    return " ".join(said)
