"""The sections of an energy's recipe: where chains start, how long they live, what else is in the potential.

One objective, (mean f(positives) - mean f(negatives)) / T, serves the three regimes of EBM Life Cycle
(arXiv 2205.12243), which differ in these values only. The fourth is the learning of Implicit Generation and
Generalization in EBMs (IGEBM, arXiv 1903.08689), with an objective in f itself.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from models.config import Frozen
from models.precision import Precision
from models.training.schedules import Probabilities, Rates, Steps

NonNegative = Annotated[float, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class NetworkSection(Frozen):
    """An architecture by name and its constructor arguments."""

    name: str
    arguments: dict[str, Any] = {}


class FromNoise(Frozen):
    """Chains start from uniform noise in [-1, 1]."""

    kind: Literal["noise"] = "noise"


class Attacked(Frozen):
    """PGD on a classifier: each image within a budget drawn up to `epsilon`, in levels of 1/255.

    Args:
        classifier: a classifier run's checkpoint.pt, or a bundle's folder.
    """

    classifier: Path
    epsilon: float = Field(default=8.0, gt=0)
    steps: int = Field(default=5, ge=1)


class FromData(Frozen):
    """Chains start from images of the dataset; those of a conditional energy with labels drawn apart from them.

    Args:
        turned: each in one of the eight attitudes of a square, at random: strokes as the data's in shapes that are not.
        attacked: each attacked first.
    """

    kind: Literal["data"] = "data"
    turned: bool = Field(default=False, exclude_if=lambda value: not value)  # runs from before it still resume
    attacked: Attacked | None = Field(default=None, exclude_if=lambda value: value is None)


class FromGenerator(Frozen):
    """Chains start from a generator that learns beside the energy, by regression on where they ended."""

    kind: Literal["generator"] = "generator"
    network: NetworkSection
    learning_rates: Rates
    average_decay: float = Field(default=0.999, ge=0, lt=1)


class FromFrozenGenerator(Frozen):
    """Chains start from a generator that learned before.

    Args:
        path: a short-run checkpoint.pt, or a folder that `python -m models convert-generator` wrote.
        resize: bring its images to the side of the dataset's.
    """

    kind: Literal["frozen_generator"] = "frozen_generator"
    path: Path
    resize: bool = False


Initial = Annotated[FromNoise | FromData | FromGenerator | FromFrozenGenerator, Field(discriminator="kind")]


class Prior(Frozen):
    """What chains follow besides f, and f's own loss does not see: f_prior(x) / T_prior + |x|^2 / (2 tau^2).

    Args:
        tau: standard deviation of the Gaussian term in [-1, 1] pixel units.
        energy: an energy run's checkpoint.pt, or a .safetensors file with `network` and `temperature` beside it.
    """

    tau: float | None = Field(default=None, gt=0)
    energy: Path | None = None
    network: NetworkSection | None = None
    temperature: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _says_what_it_is(self) -> "Prior":
        if self.tau is None and self.energy is None:
            raise ValueError("expected tau, energy or both")
        described = self.network is not None and self.temperature is not None
        if self.energy is not None and self.energy.suffix == ".safetensors" and not described:
            raise ValueError(f"energy {self.energy} holds weights alone: network and temperature must be given")
        if (self.energy is None or self.energy.suffix != ".safetensors") and (self.network or self.temperature):
            raise ValueError(f"network and temperature belong to a .safetensors file, got energy {self.energy}")
        return self


class Learning(Frozen):
    """What all regimes share. Noise is in [-1, 1] pixel units; schedules are `[[first update, value], ...]`.

    Args:
        bank_size: chains that persist from update to update; 0 starts all of them anew each time.
        num_steps: a schedule that replaces the sampler's number of Langevin steps an update.
        gradient_clip: longest gradient (L2) of one weight tensor, for the energy and a generator beside it.
        spread_clip: (k, floor): no element of a gradient is larger than k * sqrt(v) + floor, v Adam's running mean of
            its square (IGEBM's code: 3 and 0.1).
        adam_betas: of the energy's optimizer.
        dequantise: positives are uniform within the width of their levels, in [-1, 1].
        langevin_clip: longest gradient of the potential that a chain follows (L2 over an image).
        update_precision: of the network while it learns; weights, gradients and optimizer stay in float32.
        bank_precision: what the bank holds its chains in.
        keep_every: updates after which the averaged weights are kept for good, for a historical ensemble; 0 keeps none.
    """

    updates: int = Field(ge=1)
    batch_size: int = Field(default=64, ge=1)
    bank_size: int = Field(default=10_000, ge=0)
    data_noise: float = Field(ge=0)
    learning_rates: Rates
    num_steps: Steps | None = None
    average_decay: float = Field(default=0.999, ge=0, lt=1)
    flip: bool = False
    gradient_clip: float | None = Field(default=None, gt=0)
    spread_clip: tuple[NonNegative, NonNegative] | None = None
    adam_betas: tuple[Decay, Decay] = (0.9, 0.999)
    dequantise: bool = False
    langevin_clip: float | None = Field(default=None, gt=0)
    update_precision: Precision = "float32"
    bank_precision: Precision = "float32"
    log_every: int = Field(default=20, ge=1)
    checkpoint_every: int = Field(default=200, ge=1)
    keep_every: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _bank_holds_a_batch(self) -> "Learning":
        if 0 < self.bank_size < self.batch_size:
            raise ValueError(f"bank_size {self.bank_size} is less than batch_size {self.batch_size}")
        return self


class Restarting(Learning):
    """Short-run and mid-run learning: a drawn chain restarts by chance, or after `max_age` updates (0: no limit)."""

    rejuvenation_prob: Probabilities | None = None
    max_age: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _restarts_are_a_banks(self) -> "Restarting":
        if self.bank_size and self.rejuvenation_prob is None:
            raise ValueError(f"rejuvenation_prob is missing: bank_size is {self.bank_size}")
        if not self.bank_size and (self.rejuvenation_prob is not None or self.max_age):
            raise ValueError("bank_size is 0: every chain restarts, so rejuvenation_prob and max_age mean nothing")
        return self


class ImplicitRun(Restarting):
    """Learning as in IGEBM: chains from a bank, some of them anew, and energies that are kept small.

    The objective is a term of f(positives) and f(negatives), and penalty * (mean f(positives)^2 + mean f(negatives)^2),
    and kl_weight * mean f(ends) where the ends are functions of the weights by which their chains moved, and
    label_weight * mean -log p(label | positive) where the energy has classes.

    Args:
        objective: see `models.training.objectives`.
        kl_steps: how many of a chain's last steps are differentiated through; 0 leaves that term out, as every
            experiment of the paper's code does.
        label_temperature: of p(label | positive); the smaller, the smaller the differences between labels' energies.
    """

    data_noise: float = Field(default=0.0, ge=0)
    rejuvenation_prob: Probabilities | None = ((0, 0.05),)
    objective: Literal["linear", "logsumexp", "softplus"] = "linear"
    penalty: float = Field(default=1.0, ge=0)
    kl_steps: int = Field(default=0, ge=0)
    kl_weight: float = Field(default=1.0, gt=0)
    # Left out of what is written where they are as in runs from before, which still resume.
    label_weight: float = Field(default=0.0, ge=0, exclude_if=lambda value: value == 0.0)
    label_temperature: float = Field(default=1.0, gt=0, exclude_if=lambda value: value == 1.0)
    spread_clip: tuple[NonNegative, NonNegative] | None = (3.0, 0.1)
    adam_betas: tuple[Decay, Decay] = (0.0, 0.999)
    dequantise: bool = True

    @model_validator(mode="after")
    def _gradients_pass_through_chains(self) -> "ImplicitRun":
        if self.kl_steps and self.langevin_clip is not None:
            raise ValueError(
                f"kl_steps {self.kl_steps} differentiates through sampler.gradient_clamp, not through "
                f"langevin_clip {self.langevin_clip}: leave one of them out"
            )
        return self


class LongRun(Learning):
    """Long-run learning: chains of the bank never restart; others burn in first and then take their place.

    Args:
        burn_in_size: chains that are burning in.
        burn_in_updates: updates of a chain before it is promoted to the bank.
    """

    burn_in_size: int = Field(default=1_000, ge=1)
    burn_in_updates: int = Field(default=750, ge=1)

    @model_validator(mode="after")
    def _banks_hold_a_batch(self) -> "LongRun":
        if min(self.burn_in_size, self.bank_size) < self.batch_size:
            raise ValueError(
                f"burn_in_size {self.burn_in_size} and bank_size {self.bank_size} must be at least "
                f"batch_size {self.batch_size}"
            )
        return self
