"""Measuring what clean images look like to a defence."""

from collections.abc import Callable

import torch
from torch import Tensor

from models.bundle import Bundle
from models.calibration import MINIMUM_IMAGES, Calibration, Origin, Signals, fit_calibration, measure_signals
from models.errors import DataError
from models.evaluation.detection import respond
from models.evaluation.sample import LabelledImages
from models.langevin import LangevinInfo
from models.noise import Noise, SeededNoise
from models.purifier import Preset, PurifiedClassifier, chain_batches, split_replicates

Advance = Callable[[int], None]
"""Told the number of image-steps after each step, for a progress bar."""


def calibrate(bundle: Bundle, preset_name: str, clean: LabelledImages, seed: int, advance: Advance) -> Calibration:
    """The calibration of one preset; raises DataError for fewer than MINIMUM_IMAGES images."""
    manifest, count = bundle.manifest, len(clean.images)
    if count < MINIMUM_IMAGES:
        raise DataError(f"a calibration needs at least {MINIMUM_IMAGES} images, got {count}")
    preset = manifest.preset(preset_name)
    signals = signals_of(bundle.defence, clean.images, preset, seed, advance)
    energies = respond(bundle.defence.energy, clean.images, preset.precision).energy
    origin = Origin(
        preset=preset, weights=manifest.weights_digest, data=clean.name, first=clean.first, images=count, seed=seed
    )
    return fit_calibration(signals, origin, energies)


def signals_of(
    defence: PurifiedClassifier,
    images: Tensor,
    preset: Preset,
    seed: int,
    advance: Advance = lambda image_steps: None,
) -> Signals:
    """The signals of images [B, C, H, W] in [-1, 1], with seeded noise."""
    return answers_and_signals(defence, images, preset, seed, advance)[1]


@torch.no_grad()
def answers_and_signals(
    defence: PurifiedClassifier,
    images: Tensor,
    preset: Preset,
    seed: int,
    advance: Advance = lambda image_steps: None,
) -> tuple[Tensor, Signals]:
    """The replicates' logits [R, B, K] of images [B, C, H, W] in [-1, 1], and the signals of the same chains."""
    noise = SeededNoise(torch.Generator(images.device).manual_seed(seed))
    batches = chain_batches(images, preset.replicates)
    purified, drops = zip(*[_purify(defence, batch, preset, noise, advance) for batch in batches], strict=True)
    logits = torch.cat([defence.classify(batch) for batch in purified])
    chains = (torch.cat(purified), logits, torch.cat(drops))
    by_replicate = [split_replicates(values, preset.replicates) for values in chains]
    return by_replicate[1], measure_signals(images, *by_replicate)


def _purify(
    defence: PurifiedClassifier, batch: Tensor, preset: Preset, noise: Noise, advance: Advance
) -> tuple[Tensor, Tensor]:
    """The chains' last states, and how far U fell from before the first step to before the last one, [B]."""
    energies: list[Tensor] = []

    def watch(step: int, state: Tensor, info: LangevinInfo) -> None:
        energies.append(info.energy)
        advance(len(state))

    purified = defence.purify(batch, preset, noise, watch)
    return purified, energies[0] - energies[-1] if energies else batch.new_zeros(len(batch))
