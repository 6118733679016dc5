"""Class-incremental learning: classes come a few at a time, and at the end all of them are told apart by one head.

No task is named at test, and none comes back. The protocol and its baselines are those of Hsu et al.
(arXiv 1810.12488), whose numbers IGEBM (arXiv 1903.08689) puts beside a conditional energy E(x, y): that one is learned
by contrastive divergence on the labels at hand, and says argmin_y E(x, y).
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from models.config import Frozen
from models.console import progress_bar
from models.data import BatchPlan, ImageDataset
from models.errors import DataError, TrainingDiverged
from models.pixels import from_uint8

AT_ONCE = 1000
"""Images whose energies are computed together."""
FISHER_AT_ONCE = 32
"""Images whose gradients of all weights are held together."""


def split_classes(classes: int, per_task: int) -> list[tuple[int, ...]]:
    """The labels of each task, in order; raises DataError where the tasks would not be of one size."""
    if per_task < 1 or classes % per_task:
        raise DataError(f"{classes} classes do not make tasks of {per_task}")
    return [tuple(range(first, first + per_task)) for first in range(0, classes, per_task)]


@torch.no_grad()
def label_energies(network: nn.Module, images: Tensor, labels: Sequence[int]) -> Tensor:
    """E(x, y) for every label: uint8 images [N, C, H, W] to [N, len(labels)]."""
    device = next(network.parameters()).device
    parts = []
    for batch in images.split(AT_ONCE):
        x = from_uint8(batch.to(device))
        parts.append(torch.stack([network(x, torch.full((len(x),), y, device=device)) for y in labels], 1))
    return torch.cat(parts).cpu()


def correct_by_energy(
    network: nn.Module, data: ImageDataset, labels: Sequence[int], levels: Sequence[float] | None = None
) -> int:
    """How many images have their own label's energy as the lowest of `labels`, which hold those of all of them.

    Args:
        levels: what is taken off each label's energy first. Learning by chains of one label leaves a constant of each
            label open, for exp(-E(x, y)) / Z(y) has another Z for each of them.
    """
    energies = label_energies(network, data.images, labels)
    if levels is not None:
        energies = energies - torch.tensor(levels)
    return int((torch.tensor(labels)[energies.argmin(1)] == data.labels).sum())


def mean_energy(network: nn.Module, data: ImageDataset, label: int) -> float:
    """E(x, y), mean over (up to 1,000) images with that label."""
    return float(label_energies(network, data.of_classes([label]).images[:AT_ONCE], [label]).mean())


@torch.no_grad()
def correct_by_logits(network: nn.Module, data: ImageDataset, labels: Sequence[int]) -> int:
    """How many images have their own label's logit as the highest of `labels`."""
    device = next(network.parameters()).device
    highest = [
        network(from_uint8(batch.to(device)))[:, list(labels)].argmax(1).cpu() for batch in data.images.split(AT_ONCE)
    ]
    return int((torch.tensor(labels)[torch.cat(highest)] == data.labels).sum())


class SoftmaxLearning(Frozen):
    """How a classifier learns each task: Adam, and elastic weight consolidation where `strength` is above 0.

    Args:
        updates: of each task.
        widths: of the hidden layers.
        strength: lambda of EWC; 0 is fine-tuning.
        fisher_images: of each task, by which the importance of its weights is estimated.
    """

    updates: int = Field(ge=1)
    batch_size: int = Field(default=128, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    widths: tuple[int, ...] = (400, 400)
    strength: float = Field(default=0.0, ge=0)
    fisher_images: int = Field(default=512, ge=1)


class ElasticWeights:
    """Elastic weight consolidation (Kirkpatrick et al., arXiv 1612.00796): springs to the weights of earlier tasks.

    The penalty is 1/2 sum over tasks k and weights i of F_ki (w_i - w_ki)^2, F_k the diagonal of the Fisher information
    at w_k, where task k ended.
    """

    def __init__(self) -> None:
        self._springs: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []

    def remember(self, network: nn.Module, images: Tensor, generator: torch.Generator) -> None:
        """Take in the end of a task, with images [N, ...] of it; labels are the network's own predictions, drawn."""
        weights = {name: weight.detach().clone() for name, weight in network.named_parameters()}
        self._springs.append((weights, diagonal_fisher(network, images, generator)))

    def penalty(self, network: nn.Module) -> Tensor:
        """A scalar, 0 before the first task's end."""
        own = dict(network.named_parameters())
        total = next(iter(own.values())).new_zeros(())
        for weights, fisher in self._springs:
            for name, weight in own.items():
                total = total + 0.5 * (fisher[name] * (weight - weights[name]).square()).sum()
        return total


def diagonal_fisher(network: nn.Module, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """E[(d log p(y | x) / dw)^2] for each weight w, over the images and y ~ p(y | x)."""
    weights = {name: weight.detach() for name, weight in network.named_parameters()}

    def log_likelihood(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        logits: Tensor = functional_call(network, weights, (x[None],))
        return logits.log_softmax(1)[0].gather(0, y).squeeze(0)

    gradients = vmap(grad(log_likelihood), in_dims=(None, 0, 0))
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for batch in images.split(FISHER_AT_ONCE):
        with torch.no_grad():
            labels = network(batch).softmax(1).multinomial(1, generator=generator)
        for name, found in gradients(weights, batch, labels).items():
            total[name] += found.square().sum(0) / len(images)
    return total


def softmax_network(shape: Sequence[int], classes: int, config: SoftmaxLearning, seed: int) -> nn.Module:
    """Images in [-1, 1] of `shape` (C, H, W) to logits [B, classes]; the weights are a function of the seed."""
    torch.manual_seed(seed)
    sizes = [int(torch.tensor(shape).prod()), *config.widths]
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in zip(sizes, config.widths, strict=False):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))


def learn_task(
    network: nn.Module, data: ImageDataset, elastic: ElasticWeights, config: SoftmaxLearning, seed: int
) -> None:
    """Cross entropy over all classes on one task's images, with the springs of those before it; then remember it."""
    device = next(network.parameters()).device
    optimizer = torch.optim.Adam(network.parameters(), config.learning_rate)
    plan = BatchPlan(config.batch_size, seed)
    with progress_bar(f"classes {sorted(set(data.labels.tolist()))}", config.updates) as progress:
        for update in range(config.updates):
            rows = plan.rows(update, len(data))
            logits = network(from_uint8(data.images[rows].to(device)))
            loss = functional.cross_entropy(logits, data.labels[rows].to(device))
            loss = loss + config.strength * elastic.penalty(network)
            if not bool(loss.isfinite()):
                raise TrainingDiverged(f"a classifier of strength {config.strength} has loss {loss} at update {update}")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            progress.advance(progress.task_ids[0])
    if config.strength:
        generator = torch.Generator(device).manual_seed(seed)
        rows = BatchPlan(config.fisher_images, seed).rows(config.updates, len(data))
        elastic.remember(network, from_uint8(data.images[rows].to(device)), generator)
