"""What it takes to judge composed concepts of sprites: which combinations were seen, a recogniser, and a rival.

IGEBM (arXiv 1903.08689) asks whether a size and a position that were never seen together can be drawn together:
energies of size and of position, each learned alone, are added, beside a decoder that reads both and learns to copy.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.console import progress_bar
from models.data_sprites import SHAPES, SpriteFactors, SpriteGrid, SpriteLevels, render_sprites
from models.errors import ConfigError, TrainingDiverged
from models.pixels import from_uint8

BLUR = 0.1
"""Largest standard deviation of the noise that the recogniser learns to see through: chains leave some."""


def combinations(grid: SpriteGrid, first: str, second: str) -> Tensor:
    """int64 [N]: each image's combination of two concepts' levels, as one number."""
    return grid.levels[first] * grid.values.sizes[second] + grid.levels[second]


def seen_combinations(sizes: tuple[int, int], middle: tuple[int, int], fraction: float, seed: int) -> Tensor:
    """bool [sizes]: the row and the column through `middle`, and `fraction` of all other combinations.

    More are seen at a larger fraction than at a smaller one of the same seed, and the same among them.
    """
    if not 0.0 <= fraction <= 1.0:
        raise ConfigError(f"fraction must be between 0 and 1, got {fraction}")
    seen = torch.zeros(sizes, dtype=torch.bool)
    seen[middle[0]], seen[:, middle[1]] = True, True
    others = (~seen.flatten()).nonzero().squeeze(1)
    order = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))
    chosen = others[order[: round(fraction * len(others))]]
    return seen.flatten().index_fill(0, chosen, True).view(sizes)


def fit(network: nn.Module, loss: Callable[[int], Tensor], updates: int, learning_rate: float, what: str) -> nn.Module:
    """Adam on the loss of each update, with a rate that falls to 0; the network, in evaluation mode."""
    optimizer = torch.optim.Adam(network.parameters(), learning_rate)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    with progress_bar(what, updates) as progress:
        for update in range(updates):
            value = loss(update)
            if not bool(value.isfinite()):
                raise TrainingDiverged(f"{what}: loss {float(value.detach())} at update {update}")
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            falling.step()
            progress.advance(progress.task_ids[0])
    return network.eval().requires_grad_(False)


class Recogniser(nn.Module):
    """Images [B, 1, S, S] in [-1, 1] to what they show: logits of shapes and of rotations, scale, x and y."""

    def __init__(self, side: int, rotations: int, width: int = 16) -> None:
        super().__init__()
        self.outputs = (len(SHAPES), rotations, 3)
        layers: list[nn.Module] = []
        inputs = 1
        for outputs in (width, 2 * width):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.ReLU()]
            inputs = outputs
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs * (side // 4) ** 2, 128), nn.ReLU())
        self.head = nn.Linear(128, sum(self.outputs))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shapes, rotations, places = self.head(self.layers(x)).split(self.outputs, dim=1)
        return shapes, rotations, places

    def concepts(self, x: Tensor, values: SpriteLevels) -> dict[str, Tensor]:
        """The nearest level of each concept, int64 [B]."""
        shapes, rotations, places = self(x)
        scale, *centre = places.split(1, dim=1)
        columns, rows = ((each - torch.tensor(values.positions)).abs().argmin(1) for each in centre)
        return {
            "shape": shapes.argmax(1),
            "scale": (scale - torch.tensor(values.scales)).abs().argmin(1),
            "rotation": rotations.argmax(1),
            "position": rows * len(values.positions) + columns,
        }


def learn_recogniser(side: int, values: SpriteLevels, updates: int, seed: int, batch_size: int = 64) -> Recogniser:
    """Learned from sprites rendered for it: places and scales anywhere between the levels, and some noise."""
    torch.manual_seed(seed)
    network = Recogniser(side, len(values.rotations))
    generator = torch.Generator().manual_seed(seed)

    def between(levels: Sequence[float]) -> Tensor:
        low, high = min(levels), max(levels)
        return low + (high - low) * torch.rand(batch_size, generator=generator)

    def loss(update: int) -> Tensor:
        shapes = torch.randint(len(SHAPES), (batch_size,), generator=generator)
        rotations = torch.randint(len(values.rotations), (batch_size,), generator=generator)
        scale, x, y = between(values.scales), between(values.positions), between(values.positions)
        factors = SpriteFactors(shapes, scale, torch.tensor(values.rotations)[rotations], x, y)
        images = from_uint8(render_sprites(factors, side))
        blur = BLUR * torch.rand(batch_size, 1, 1, 1, generator=generator)
        found = network(images + blur * torch.randn(images.shape, generator=generator))
        wrong = functional.cross_entropy(found[0], shapes) + functional.cross_entropy(found[1], rotations)
        return wrong + 100 * functional.mse_loss(found[2], torch.stack([scale, x, y], 1))

    fit(network, loss, updates, 2e-3, "recogniser")
    return network


class Decoder(nn.Module):
    """One-hot levels of some concepts, side by side, to the image [B, 1, side, side] that they are taken to mean."""

    def __init__(self, sizes: Sequence[int], side: int, width: int = 32) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.layers = nn.Sequential(
            nn.Linear(sum(sizes), width * (side // 8) ** 2),
            nn.ReLU(),
            nn.Unflatten(1, (width, side // 8, side // 8)),
            nn.ConvTranspose2d(width, width, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, width // 2, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(width // 2, 1, 4, 2, 1),  # no tanh: it settles on black, which most pixels are
        )

    def forward(self, *levels: Tensor) -> Tensor:
        codes = [functional.one_hot(each, size) for each, size in zip(levels, self.sizes, strict=True)]
        image: Tensor = self.layers(torch.cat(codes, 1).float())
        return image


def learn_decoder(
    grid: SpriteGrid, concepts: Sequence[str], kept: Tensor, updates: int, seed: int, batch_size: int = 64
) -> Decoder:
    """By squared error on the images of `kept`, bool [N]."""
    torch.manual_seed(seed)
    rows = kept.nonzero().squeeze(1)
    network = Decoder([grid.values.sizes[concept] for concept in concepts], grid.images.shape[2])
    generator = torch.Generator().manual_seed(seed)

    def loss(update: int) -> Tensor:
        drawn = rows[torch.randint(len(rows), (batch_size,), generator=generator)]
        levels = [grid.levels[concept][drawn] for concept in concepts]
        return functional.mse_loss(network(*levels), from_uint8(grid.images[drawn]))

    fit(network, loss, updates, 2e-3, "decoder")
    return network
