"""Long chains of a density compared with data, and its likelihood by annealing, in folders where both go on."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.console import progress_bar
from models.evaluation.ais import Annealing
from models.evaluation.annealing_run import anneal
from models.evaluation.chain_summaries import summaries_of
from models.evaluation.density import density_result
from models.evaluation.density_model import DensityModel
from models.evaluation.density_plots import plot_energies, plot_histograms, save_grids
from models.evaluation.hamiltonian import Path as Between
from models.evaluation.likelihood import likelihood_result
from models.evaluation.long_chains import LongChains, nats, read_snapshot, run_chains, snapshot_path
from models.gradients import gradient_of
from models.noise import SeededNoise
from models.pixels import dequantise

COMPONENTS = 4
COMPONENT_IMAGES = 1000
HISTOGRAMS, ENERGIES = "histograms.png", "energies.png"


def compare_chains(
    model: DensityModel,
    sets: Mapping[str, Tensor],
    start: Tensor,
    config: LongChains,
    data_noise: float,
    identity: Mapping[str, Any],
    folder: Path,
    joint_temp: float = 1.0,
) -> dict[str, Any]:
    """Run chains to the last snapshot, and say how their energies compare with data's; leaves pictures in `folder`.

    Args:
        sets: images [N, C, H, W] in [-1, 1] by name, "train" among them.
        data_noise: standard deviation that learning added to data.
        identity: what decides the chains besides `config`; plain values.
    """
    energy, temperature = model.target(joint_temp)
    summaries = summaries_of(sets["train"][:COMPONENT_IMAGES], min(COMPONENTS, len(sets["train"]) - 1))
    trace = run_chains(energy, start, config, summaries, folder, identity)
    noise = SeededNoise(torch.Generator(start.device).manual_seed(config.seed))
    noisy = {name: images + data_noise * noise(images) for name, images in sets.items()}
    data = {name: nats(energy, images, temperature).cpu() for name, images in noisy.items()}
    snapshots = [read_snapshot(snapshot_path(folder, step)) for step in config.snapshots]
    plot_histograms(data, snapshots, folder / HISTOGRAMS)
    plot_energies(data, snapshots, trace[..., 0], config.record_every, folder / ENERGIES)
    save_grids(snapshots, folder)
    return density_result(data, snapshots, trace, summaries.names, config.record_every)


def anneal_likelihood(
    model: DensityModel,
    sets: Mapping[str, Tensor],
    ends: Tensor | None,
    config: Annealing,
    identity: Mapping[str, Any],
    folder: Path,
    device: torch.device,
) -> dict[str, Any]:
    """log Z from below, from above where there are `ends` of chains, and the likelihood of dequantised images.

    Args:
        sets: uint8 images [N, C, H, W] by name.
        identity: what decides the walks besides `config`; plain values.
    """
    energy, temperature = model.target()
    # Acceptance hangs on differences of U that bfloat16 does not hold.
    path = Between(gradient_of(energy, "float32"), temperature, config.base)
    shape = tuple(next(iter(sets.values())).shape[1:])
    walked = (config.particles + (0 if ends is None else len(ends))) * config.rungs
    with progress_bar("particle steps", walked) as progress:
        advance = partial(progress.advance, progress.task_ids[0])
        up, down = anneal(path, shape, ends, config, folder, identity, device, advance)
    energies = {
        name: nats(energy, dequantise(images, torch.Generator().manual_seed(config.seed)).to(device), temperature).cpu()
        for name, images in sets.items()
    }
    return likelihood_result(up, down, False, tuple(energies.items()), math.prod(shape))
