"""What predicts trajectories: an energy of windows by IGEBM's learning, and a regression of as many updates.

Both are trained into a folder and found there again; an energy's training goes on where it was interrupted.
"""

import math
from pathlib import Path

import torch
from pydantic import Field
from safetensors.torch import load_file
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from models.config import Frozen
from models.data import DataSection, open_training_set
from models.data_trajectories import NAME, SHAPE, WINDOW
from models.files import replace_file
from models.hand_simulation import JOINTS
from models.langevin import LangevinConfig
from models.networks import build_network, load_weights
from models.networks.step_network import StepNetwork
from models.pixels import from_uint8
from models.training.program import train_recipe
from models.training.recipe import EnergyRecipe
from models.training.regression import regress
from models.training.run import load_trained
from models.training.sections import FromNoise, ImplicitRun, NetworkSection

PENALTY = 0.01
"""Of the squares of the energies, which it keeps within 1 / (2 * penalty) of 0: at IGEBM's 1 they would say too little
at this temperature."""
CHECKPOINT_EVERY = 2_000
SAMPLER = LangevinConfig(num_steps=30, step_size=0.03, temperature=0.03, gradient_clamp=4.0, box=1.0)
"""No number moves further by its gradient than two standard deviations of a step's noise, as in IGEBM: without the
clamp chains overshoot in the narrow directions of the motion, and what learns from them diverges."""


class Learning(Frozen):
    """What the energy and the regression have in common.

    Args:
        data: a folder of rollouts, or None for the cache's.
        widths: of the hidden layers; IGEBM's are three of 128.
        scale: what both networks multiply windows by, whose numbers have a standard deviation of 1/4.
    """

    data: Path | None = None
    widths: tuple[int, ...] = (256, 256)
    scale: float = Field(default=8.0, gt=0)
    updates: int = Field(default=6_000, ge=1)
    batch_size: int = Field(default=128, ge=1)
    sampler: LangevinConfig = SAMPLER
    bank_size: int = Field(default=1_024, ge=1)

    @property
    def section(self) -> DataSection:
        """The windows."""
        return DataSection(name=NAME, folder=self.data)


def energy_recipe(learning: Learning, rate: float, seed: int) -> EnergyRecipe:
    """IGEBM's learning of windows; the rate is a tenth in the last third, where Langevin's noise begins to matter."""
    network = {"size": math.prod(SHAPE), "widths": list(learning.widths), "scale": learning.scale}
    return EnergyRecipe(
        kind="energy",
        seed=seed,
        data=learning.section,
        network=NetworkSection(name="vector", arguments=network),
        sampler=learning.sampler,
        initialiser=FromNoise(),
        implicit_run=ImplicitRun(
            updates=learning.updates,
            batch_size=learning.batch_size,
            bank_size=learning.bank_size,
            learning_rates=((0, rate), (max(1, learning.updates * 2 // 3), rate / 10)),
            penalty=PENALTY,
            log_every=max(1, learning.updates // 5),
            checkpoint_every=CHECKPOINT_EVERY,
        ),
    )


def trained_energy(learning: Learning, rate: float, seed: int, folder: Path, device: torch.device) -> nn.Module:
    """The averaged energy of a training in `folder`, which is run or continued first; in evaluation mode."""
    recipe = energy_recipe(learning, rate, seed)
    train_recipe(recipe, folder, resume=True, amend=False, device=device)
    state, _ = load_trained(folder / "checkpoint.pt", "energy")
    network = build_network(recipe.network.name, recipe.network.arguments)
    load_weights(network, state["average"], str(folder))
    return network.to(device).eval().requires_grad_(False)


def trained_step_network(
    learning: Learning, known: Tensor, rate: float, spectral_norm: bool, seed: int, file: Path
) -> nn.Module:
    """The regression of the last state of a window on its known entries, in `file` or else trained into it.

    Args:
        known: bool [1, 1, T, S + A], on the device where it learns.
    """
    inputs = known[0, 0]
    torch.manual_seed(seed)
    network = StepNetwork(int(inputs.sum()), list(learning.widths), JOINTS, learning.scale, spectral_norm)
    network = network.to(known.device)
    if file.exists():
        load_weights(network, load_file(file), str(file))
        return network.eval()

    def parts(windows: Tensor) -> tuple[Tensor, Tensor]:
        return windows[:, 0, inputs], windows[:, 0, WINDOW - 1, :JOINTS]

    windows = open_training_set(learning.section)
    regress(network, windows, parts, learning.updates, learning.batch_size, rate, seed)
    weights = {name: weight.cpu().contiguous() for name, weight in network.state_dict().items()}
    replace_file(file, save_safetensors(weights))
    return network


def residual_root(network: nn.Module, images: Tensor, known: Tensor) -> Tensor:
    """[S, S]: R of the covariance R^T R of what a step network misses on windows uint8 [N, 1, T, S + A]."""
    windows = from_uint8(images.to(known.device))
    with torch.no_grad():
        missed = windows[:, 0, WINDOW - 1, :JOINTS] - network(windows[:, 0, known[0, 0]])
    lower: Tensor = torch.linalg.cholesky(torch.cov(missed.T))
    return lower.T
