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
from models.evaluation.gaussian_bits import gaussian_bits
from models.evaluation.long_chains import LongChains, read_snapshot, snapshot_path, spent_seconds
from models.pixels import from_uint8
from models.reproduce.igebm_likelihood_plot import plot_likelihood
from models.reproduce.result import Finding, Number
from models.streams import Stream
from models.training.program import train_recipe
from models.training.recipe import load_energy_recipe
from models.training.run import load_trained

FIGURE = "likelihood.png"
LONGEST_STEP = 0.05
"""Of chains in a box that is 2 wide."""
AGREEMENT = 0.5
"""Bits a pixel between both ends of log Z, up to which they are taken to have found it."""
NOISE = 1.0
"""Nats by which particles may put the ends into the wrong order."""
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


def agreed(found: Found) -> float | None:
    """Of the temperatures at which both ends of log Z agree, the one where training images are worth most."""
    near = {times: _bits(each, "train")[1] for times, each in found.items() if _agree(each)}
    return min(near, key=lambda times: near[times]) if near else None


def _agree(each: Mapping[str, Any]) -> bool:
    """Ends in the wrong order contradict each other, however near they are."""
    below, above = _bits(each, "train")
    return _apart(each) >= -NOISE and above - below <= AGREEMENT


def _apart(each: Mapping[str, Any]) -> float:
    """By how many nats log Z from above exceeds that from below."""
    ends = each["likelihood"]["log_z"]
    apart: float = ends["upper"]["value"] - ends["lower"]["value"]
    return apart


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
            what = f"{at}: log Z, {name} end ({end['is']})"
            yield Number(what=what, paper=None, ours=round(end["value"], 2), unit="nats")
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
        "density is that in the box where they lie. log Z from below is too high by b nats with probability exp(-b) at "
        "most; from above it would be too low as rarely if the chains' ends were exact samples. The Gaussian's "
        "covariance is shrunk (Ledoit and Wolf)."
    )


def explain(found: Found, gaussian: float, levels: int) -> str:
    """What test images are worth at learning's temperature, and at the best one whose log Z was found."""
    first, best = next(iter(found)), agreed(found)
    said = [_at_first(found[first])]
    if best is None:
        said.append(f"At no temperature do both ends of log Z agree to within {AGREEMENT:g} bits a pixel.")
    else:
        below, above = _bits(found[best], "test")
        near = [f"{times:g}" for times, each in found.items() if _agree(each)]
        verdict = "fewer than" if above < gaussian else "not fewer than" if below > gaussian else "about as many as"
        said.append(
            f"Both ends agree to within {AGREEMENT:g} bits at {', '.join(near)} times that "
            f"temperature. Where training images are worth most among these, at {best:g}, test images cost "
            f"{below:.2f} to {above:.2f} bits, {verdict} the Gaussian's {gaussian:.2f}."
        )
    said.append(
        f"The digits have only {levels} levels, {math.log2(levels):.2f} bits even for who knows nothing else; noise of "
        "one of 256 levels leaves them as thin peaks, which neither density shows. Learning compares chains of a few "
        "hundred steps with data and never sees log Z: it makes samples, not a density."
    )
    return " ".join(said)


def _at_first(each: Mapping[str, Any]) -> str:
    """What log Z from below proves (it is too high by b nats with probability exp(-b) at most), and the ends do not."""
    (below, _), apart = _bits(each, "test"), f"{abs(_apart(each)):,.0f} nats"
    said = f"At learning's temperature test images cost at least {below:.2f} bits a pixel by log Z from below"
    said += ", more than the 8 of knowing nothing." if below > UNIFORM else "."
    if _apart(each) < -NOISE:
        return said + (
            f" Log Z from above lies {apart} under that: the chains' ends are no samples of the density, for "
            "annealed particles find deeper places than chains from noise do."
        )
    return said + f" Log Z from above lies {apart} over that{'' if _agree(each) else ': log Z is not known'}."
