"""Pictures of a run: what its last update saw, and what its generator makes."""

import io
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from models.banks import Fresh
from models.training.diagnostics import save_grid

SHOWN = 32
LARGEST = 280_000
"""Bytes of a picture inside a page: three of them leave room for the figures."""

PICTURES = {
    "negatives": "where the chains of the update came to: what the energy takes for data, and learns to raise.",
    "positives": "images of the data as learning sees them, with its noise: what the energy learns to lower.",
    "generated": "the averaged generator's images before any chain, of the same latents at every checkpoint.",
}
"""RUN/NAME.png, and what it shows."""


def save_pictures(folder: Path, negatives: Fresh, positives: Fresh, generator: nn.Module | None) -> None:
    """Write the pictures of a checkpoint; images [B, C, H, W] in [-1, 1], by class where they have labels."""
    save_grid(_shown(negatives), folder / "negatives.png")
    save_grid(_shown(positives), folder / "positives.png")
    if generator is not None:
        same = torch.Generator(negatives.images.device).manual_seed(0)
        save_grid(generated(generator, SHOWN, same), folder / "generated.png")


def _shown(chains: Fresh) -> Tensor:
    images = chains.images[:SHOWN]
    return images if chains.labels is None else images[chains.labels[:SHOWN].argsort()]


@torch.no_grad()
def generated(network: nn.Module, count: int, generator: torch.Generator) -> Tensor:
    """G(z) [count, C, H, W] of a network in evaluation mode, z ~ N(0, I), on the random generator's device."""
    size: int = network.latent_size  # type: ignore[assignment]
    latents = torch.randn(count, size, generator=generator, device=generator.device)
    images: Tensor = network(latents)
    return images


def read_picture(path: Path) -> bytes:
    """A PNG file, at half its size as often as it takes to fit in a page."""
    png = path.read_bytes()
    while len(png) > LARGEST:
        with Image.open(io.BytesIO(png)) as opened:
            half = opened.convert("RGB").resize((opened.width // 2, opened.height // 2), Image.Resampling.BOX)
        buffer = io.BytesIO()
        half.save(buffer, format="PNG")
        png = buffer.getvalue()
    return png
