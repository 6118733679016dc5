"""python -m models chains | likelihood: is an energy a density whose chains stay with the data?"""

import argparse
import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.bundle import sha256
from models.config import validate
from models.console import console, positive_float, positive_int
from models.data import load_dataset
from models.device import resolve_device
from models.errors import ConfigError, DataError
from models.evaluation.ais import Annealing
from models.evaluation.annealing_bases import BoxBase, GaussianBase
from models.evaluation.chain_starts import noise_start, uniform_start
from models.evaluation.density_model import DensityModel, density_of_bundle, density_of_checkpoints
from models.evaluation.density_run import anneal_likelihood, compare_chains
from models.evaluation.long_chains import LongChains, read_snapshot
from models.files import commit, replace_file
from models.langevin import LangevinConfig
from models.pixels import from_uint8
from models.streams import Stream


def chains(options: argparse.Namespace) -> None:
    """Long chains of an energy, compared with data at snapshots; the same command continues an interrupted run."""
    if missing := [name for name in ("matplotlib", "scipy") if find_spec(name) is None]:
        raise ConfigError(f"comparing chains with data needs {' and '.join(missing)}: install the extra `eval`")
    device = resolve_device(options.device)
    model = _density(options, device)
    sets = {name: from_uint8(_images(model.data, name, options)).to(device) for name in ("train", "test")}
    config = _long_chains(options, model, model.target(options.joint_temp)[1])
    identity = {"weights": model.digest, "tau": model.tau, "joint_temp": options.joint_temp, "start": options.start}
    start = _start(options, sets["test"], device)
    result = compare_chains(model, sets, start, config, options.data_noise, identity, options.out, options.joint_temp)
    settings = {**identity, "data": model.data, "data_noise": options.data_noise, "chains": config.model_dump()}
    _write(options.out / "result.json", {**settings, **result, "data": {"name": model.data, **result["data"]}})
    _print_chains(result, options.out)


def likelihood(options: argparse.Namespace) -> None:
    """log Z of an energy by annealing, and the likelihood of test images; the same command continues a run."""
    device = resolve_device(options.device)
    model = _density(options, device)
    names = ("particles", "chunk", "rungs", "power", "leapfrog_steps", "seed")
    base = _base(options.base, options.base_scale, model.tau)
    table = {"base": base, **{name: getattr(options, name) for name in names}}
    config = validate(Annealing, table, "annealing")
    ends = None if options.ends is None else read_snapshot(options.ends).states[: config.particles].to(device)
    identity = {"weights": model.digest, "tau": model.tau, "ends": options.ends and sha256(options.ends.read_bytes())}
    sets = {"test": _images(model.data, "test", options)}
    result = anneal_likelihood(model, sets, ends, config, identity, options.out, device)
    _write(options.out / "result.json", {**identity, "data": model.data, "annealing": config.model_dump(), **result})
    _print_likelihood(result, options.out)


def chains_arguments(parser: argparse.ArgumentParser) -> None:
    """What `chains` reads, but for the device."""
    _common_arguments(parser)
    parser.add_argument(
        "--joint-temp", type=positive_float, default=1.0, help="divides energies, not the Gaussian term"
    )
    parser.add_argument("--start", choices=("noise", "uniform", "data"), default="noise")
    parser.add_argument("--chains", type=positive_int, default=64)
    parser.add_argument("--steps", type=positive_int, default=100_000, help="snapshots at 100, 1,000, ... and the end")
    parser.add_argument("--step-size", type=positive_float, help="default: the training sampler's")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), help="default: the training sampler's")
    parser.add_argument("--block", type=positive_int, default=50, help="steps at a time; a stop waits for their end")
    parser.add_argument("--record-every", type=positive_int, help="steps (default: a thousandth of the run)")
    parser.add_argument("--data-noise", type=float, default=0.0, help="standard deviation that learning added to data")


def likelihood_arguments(parser: argparse.ArgumentParser) -> None:
    """What `likelihood` reads, but for the device."""
    _common_arguments(parser)
    parser.add_argument("--ends", type=Path, help="a snapshot of long chains, to estimate log Z from above")
    parser.add_argument("--base", choices=("gaussian", "box"), help="default: gaussian with --tau, or else box")
    parser.add_argument("--base-scale", type=positive_float, help="of a Gaussian base (default: tau)")
    parser.add_argument("--particles", type=positive_int, default=64)
    parser.add_argument("--chunk", type=positive_int, default=16, help="particles that a core walks at a time")
    parser.add_argument("--rungs", type=positive_int, default=1000)
    parser.add_argument("--power", type=positive_float, default=4.0, help="of the ladder: the k-th rung is (k/K)^power")
    parser.add_argument("--leapfrog-steps", type=positive_int, default=5)


def _common_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--bundle", type=Path, help="a bundle, whose energy is the density's")
    source.add_argument(
        "--energy",
        type=Path,
        nargs="+",
        help="checkpoint.pt, or .safetensors with the recipe, of energies that are added, f then prior",
    )
    parser.add_argument("--tau", type=positive_float, help="adds |x|^2 / (2 tau^2), as in long-run learning")
    parser.add_argument("--images", type=positive_int, default=1000, help="of each set of data (default 1000)")
    parser.add_argument("--folder", type=Path, help="a local folder that holds the dataset's files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")


def _density(options: argparse.Namespace, device: torch.device) -> DensityModel:
    if options.bundle is not None:
        return density_of_bundle(options.bundle, options.tau, device)
    return density_of_checkpoints(options.energy, options.tau, device)


def _images(data: str, split: str, options: argparse.Namespace) -> Tensor:
    return load_dataset(data, "train" if split == "train" else "test", options.folder).images[: options.images]


def _long_chains(options: argparse.Namespace, model: DensityModel, temperature: float) -> LongChains:
    given = {"step_size": options.step_size, "precision": options.precision}
    changed = {"num_steps": options.block, "temperature": temperature, **{k: v for k, v in given.items() if v}}
    powers = [10**exponent for exponent in range(2, 9) if 10**exponent < options.steps]
    every = options.record_every or options.block * max(1, round(options.steps / (1000 * options.block)))
    block = LangevinConfig(**{**model.sampler.model_dump(), **changed})
    table = {"block": block, "snapshots": (*powers, options.steps), "record_every": every, "seed": options.seed}
    return validate(LongChains, table, "--steps, --block, --record-every")


def _base(name: str | None, scale: float | None, tau: float | None) -> GaussianBase | BoxBase:
    """Without the Gaussian term a network need not integrate over all of space, so the default is then the box."""
    if name == "box" or (name is None and tau is None and scale is None):
        return BoxBase()
    if (chosen := scale or tau) is None:
        raise ConfigError("a Gaussian base without --tau needs --base-scale, its standard deviation")
    return GaussianBase(scale=chosen)


def _start(options: argparse.Namespace, images: Tensor, device: torch.device) -> Tensor:
    shape = (options.chains, *images.shape[1:])
    stream = Stream((options.seed, "long chains", "start"))
    if options.start == "noise":
        return noise_start(shape, stream, device)
    if options.start == "uniform":
        return uniform_start(shape, stream, device)
    if options.chains > len(images):
        raise DataError(f"{options.chains} chains can not start from {len(images)} images: raise --images")
    return images[: options.chains]


def _write(path: Path, result: Mapping[str, Any]) -> None:
    text = json.dumps({**result, "commit": commit(), "torch": torch.__version__}, indent=2, allow_nan=False)
    replace_file(path, (text + "\n").encode())


def _print_chains(result: Mapping[str, Any], folder: Path) -> None:
    for row in result["snapshots"]:
        against = row["against"]["test"]
        console.print(
            f"{row['step']:>9,} steps  U {row['energies']['mean']:.1f} nats, gap to test images "
            f"{against['gap']:.1f} ± {against['gap_error']:.1f}, KS {against['kolmogorov']:.3f}"
        )
    for each in result["diagnostics"]:
        if each["rhat"] is not None:
            console.print(
                f"{each['name']:<12} split R-hat {each['rhat']:.3f}, effective draws {each['effective_samples']:.0f}, "
                f"autocorrelation time {each['autocorrelation_time']:.0f} steps"
            )
    console.print(f"{folder / 'result.json'}: written, with histograms.png, energies.png and images-STEP.png")


def _print_likelihood(result: Mapping[str, Any], folder: Path) -> None:
    for name, end in result["log_z"].items():
        if end is not None:
            console.print(
                f"log Z, {name}: {end['value']:.2f} ± {end['error']:.2f} nats ({end['is']}), "
                f"{end['effective_particles']:.1f} of {end['particles']} particles effective"
            )
    for name, ends in result["likelihood"].items():
        for bound in ("at_least", "at_most"):
            if (found := ends[bound]) is not None:
                console.print(
                    f"{name}, {bound}: {found['nats']:.2f} ± {found['nats_error']:.2f} nats an image, "
                    f"{found['bits_per_dimension']:.4f} bits per dimension"
                )
    console.print(f"{folder / 'result.json'}: written")
