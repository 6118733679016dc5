"""Training the classifier that purification protects: SGD, one-cycle learning rate, light augmentation, attacks."""

import math

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from models.config import Frozen
from models.console import progress_bar
from models.data import ImageDataset
from models.errors import TrainingDiverged
from models.pixels import Normalisation, from_uint8
from models.precision import Precision
from models.training.adversarial import Adversarial
from models.training.average import WeightAverage
from models.training.classifier_objective import ClassifierObjective, Purifying, StraightThrough
from models.training.joint_density import Joint, JointDensity
from models.training.run import State, TrainingRun


class ClassifierTraining(Frozen):
    """Optimisation and augmentation of a classifier; lengths in pixels, noise in [-1, 1] pixel units."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(default=256, ge=1)
    learning_rate: float = Field(default=0.25, gt=0)
    warmup_fraction: float = Field(default=0.2, gt=0, lt=1)
    momentum: float = Field(default=0.9, gt=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    flip: bool = True
    crop_padding: int = Field(default=4, ge=0)
    cutout: int = Field(default=8, ge=0)
    # Each image gets Gaussian noise of a standard deviation drawn from U(min_noise, max_noise): purified images carry a
    # little Langevin noise, and the classifier should not mind it; certificates need much more of it.
    min_noise: float = Field(default=0.0, ge=0, exclude_if=lambda value: not value)
    max_noise: float = Field(default=0.0, ge=0)
    average_decay: float = Field(default=0.998, ge=0, lt=1)
    precision: Precision = "float32"
    adversarial: Adversarial | None = Field(default=None, exclude_if=lambda value: value is None)
    purifier: Purifying | None = Field(default=None, exclude_if=lambda value: value is None)
    joint: Joint | None = Field(default=None, exclude_if=lambda value: value is None)

    @model_validator(mode="after")
    def _one_noise(self) -> "ClassifierTraining":
        if self.adversarial and self.max_noise:
            raise ValueError(f"adversarial.start is the noise; expected max_noise 0, got {self.max_noise}")
        if self.min_noise > self.max_noise:
            raise ValueError(f"min_noise {self.min_noise} must not be above max_noise {self.max_noise}")
        return self

    @model_validator(mode="after")
    def _positives_are_made(self) -> "ClassifierTraining":
        if self.joint and self.joint.positives == "both" and self.adversarial is None:
            raise ValueError("joint.positives is 'both', and nothing attacks: expected 'clean', or adversarial")
        return self


def train_classifier(
    network: nn.Module,
    train: ImageDataset,
    monitored: ImageDataset,
    normalisation: Normalisation,
    config: ClassifierTraining,
    run: TrainingRun,
    seed: int,
    device: torch.device,
    monitored_as: str = "test",
) -> WeightAverage:
    """Train to the end of the schedule and return the averaged weights; checkpoints once an epoch.

    Args:
        monitored: images whose accuracy without a purifier is logged after each epoch, as `monitored_as`_accuracy.
    """
    # Channels-last convolutions are 1.2 to 1.4 times faster here, on CPU and on tensor cores.
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = WeightAverage(network, config.average_decay)
    optimizer = torch.optim.SGD(
        network.parameters(), config.learning_rate, config.momentum, weight_decay=config.weight_decay, nesterov=True
    )
    generator, chains = torch.Generator().manual_seed(seed), torch.Generator(device).manual_seed(seed + 1)
    objective = ClassifierObjective(
        normalisation,
        config.label_smoothing,
        config.precision,
        config.adversarial,
        None if config.purifier is None else StraightThrough(config.purifier, chains, device),
        None if config.joint is None else JointDensity(config.joint, train, normalisation, chains),
        generator,
        device,
    )
    epoch_updates = len(train) // config.batch_size
    total = config.epochs * epoch_updates
    update = 0
    if (state := run.restore()) is not None:
        update = _restore(state, network, average, optimizer, generator, chains, objective.density)

    with progress_bar("classifier", total, update) as progress:
        while update < total:
            order = torch.randperm(len(train), generator=generator)
            losses = []
            network.train(config.joint is None)  # see `joint_density`: it stays the function that its chains follow
            for rows in order[: epoch_updates * config.batch_size].split(config.batch_size):
                images = augment(train.images[rows], config, generator)
                for group in optimizer.param_groups:
                    group["lr"] = config.learning_rate * one_cycle(update / total, config.warmup_fraction)
                loss = objective.loss(network, images, train.labels[rows])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                average.update(network)
                losses.append(loss.detach())
                update += 1
                progress.advance(progress.task_ids[0])
            mean_loss = float(torch.stack(losses).mean())
            if not math.isfinite(mean_loss):
                raise TrainingDiverged(f"classifier loss is {mean_loss} in the epoch that ends at update {update}")
            # For monitoring only: nothing is selected by it, the last weights are the ones kept.
            correct = count_correct(average.network, monitored, normalisation, device)
            record = {"loss": mean_loss, f"{monitored_as}_accuracy": correct / len(monitored)}
            if config.adversarial:
                record["attacked_accuracy"] = objective.held(average.network, monitored)
            run.log(update, record)
            run.save(update, _state(network, average, optimizer, generator, chains, objective.density))
    return average


def one_cycle(position: float, warmup: float) -> float:
    """Linear from 0 to 1 over `warmup` of the run, then linear back to 0; `position` in [0, 1)."""
    return position / warmup if position < warmup else (1.0 - position) / (1.0 - warmup)


def augment(pixels: Tensor, config: ClassifierTraining, generator: torch.Generator) -> Tensor:
    """uint8 [B, C, H, W] to augmented float [-1, 1]: random mirror, shifted crop, square cutout, Gaussian noise."""
    batch, _, height, width = pixels.shape
    images = from_uint8(pixels)
    if config.flip:
        mirrored = torch.rand(batch, generator=generator) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    if config.crop_padding:
        images = random_crop(images, config.crop_padding, generator)
    if config.cutout:
        rows = torch.arange(height) - torch.randint(height, (batch, 1), generator=generator)
        columns = torch.arange(width) - torch.randint(width, (batch, 1), generator=generator)
        half = config.cutout // 2
        hole = (rows >= -half) & (rows < half)
        hole = hole[:, :, None] & ((columns >= -half) & (columns < half))[:, None, :]
        images = images.masked_fill(hole[:, None], 0.0)
    if config.max_noise:
        span = config.max_noise - config.min_noise
        scale = config.min_noise + span * torch.rand(batch, 1, 1, 1, generator=generator)
        images = images + scale * torch.randn(images.shape, generator=generator)
    return images


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Each image shifted by up to `padding` pixels each way, its border reflected."""
    batch, channels, height, width = images.shape
    padded = functional.pad(images, (padding,) * 4, mode="reflect")
    top = torch.randint(2 * padding + 1, (batch, 1), generator=generator) + torch.arange(height)
    left = torch.randint(2 * padding + 1, (batch, 1), generator=generator) + torch.arange(width)
    batch_index = torch.arange(batch)[:, None, None, None]
    channel_index = torch.arange(channels)[None, :, None, None]
    return padded[batch_index, channel_index, top[:, None, :, None], left[:, None, None, :]]


@torch.no_grad()
def count_correct(network: nn.Module, dataset: ImageDataset, normalisation: Normalisation, device: torch.device) -> int:
    """How many images of `dataset` the network labels correctly, in float32."""
    correct = 0
    for images, labels in zip(dataset.images.split(500), dataset.labels.split(500), strict=True):
        inputs = normalisation(from_uint8(images)).to(device, memory_format=torch.channels_last)
        correct += int((network(inputs).argmax(1).cpu() == labels).sum())
    return correct


def _state(
    network: nn.Module,
    average: WeightAverage,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    chains: torch.Generator,
    density: JointDensity | None,
) -> State:
    return {
        "network": network.state_dict(),
        "average": average.network.state_dict(),
        "average_updates": average.updates,
        "optimizer": optimizer.state_dict(),
        "generator": generator.get_state(),
        "chains": chains.get_state(),
        "bank": None if density is None else density.state_dict(),
    }


def _restore(
    state: State,
    network: nn.Module,
    average: WeightAverage,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    chains: torch.Generator,
    density: JointDensity | None,
) -> int:
    network.load_state_dict(state["network"])
    average.network.load_state_dict(state["average"])
    average.updates = state["average_updates"]
    optimizer.load_state_dict(state["optimizer"])
    generator.set_state(state["generator"])
    if "chains" in state:  # runs from before chains could stand before a classifier have none
        chains.set_state(state["chains"])
    if density is not None:
        density.load_state_dict(state["bank"])
    update: int = state["update"]
    return update
