"""Restoration, on energies whose conditional distributions are known, and on real images."""

import math

import pytest
import torch
from torch import Tensor

from models.bundle import Bundle
from models.data import ImageDataset
from models.errors import DataError
from models.noise import SeededNoise
from models.pixels import from_uint8
from models.purifier import Preset
from models.streams import Stream
from models.tasks.baselines import baselines
from models.tasks.corruptions import SaltAndPepper
from models.tasks.image_quality import mean_of, mse, psnr
from models.tasks.restoration import Start, denoise, extremes, fill, inpaint, mask_of, spread_levels

CHANNELS, SIDE = 2, 4


def neighbours(x: Tensor) -> Tensor:
    """Half the squared differences to the right and lower neighbours: given all others, a pixel's mean is theirs."""
    across = (x[..., 1:] - x[..., :-1]).flatten(1).square().sum(1)
    return (across + (x[..., 1:, :] - x[..., :-1, :]).flatten(1).square().sum(1)) / 2


def seeded(seed: int = 0) -> SeededNoise:
    return SeededNoise(torch.Generator().manual_seed(seed))


def images(count: int) -> Tensor:
    return torch.rand(count, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) - 0.5


def one_pixel(count: int) -> Tensor:
    mask = torch.zeros(count, 1, SIDE, SIDE, dtype=torch.bool)
    mask[:, :, 1, 2] = True
    return mask


@pytest.mark.parametrize("start", ["smooth", "noise"])
def test_answer_and_spread_are_the_conditional_mean_and_deviation(start: Start) -> None:
    """With four neighbours of mean m, x' = (1 - 4r) x + 4r m + s z, whose variance is s^2 / (1 - (1 - 4r)^2)."""
    preset = Preset(num_steps=40, step_size=0.3, temperature=0.5, replicates=300)
    x, mask = images(3), one_pixel(3)
    restored = inpaint(neighbours, x, mask, preset, start, seeded())
    mean = (x[:, :, 0, 2] + x[:, :, 2, 2] + x[:, :, 1, 1] + x[:, :, 1, 3]) / 4
    deviation = preset.step_size / math.sqrt(1 - (1 - 4 * preset.drift_rate) ** 2)
    error = 4 * deviation / math.sqrt(preset.replicates)
    torch.testing.assert_close(restored.images[:, :, 1, 2], mean, rtol=0, atol=error)
    expected = torch.full((3,), deviation)
    torch.testing.assert_close(restored.spread[:, 0, 1, 2], expected, rtol=4 / math.sqrt(4 * preset.replicates), atol=0)
    known = ~mask.expand_as(x)
    assert torch.equal(restored.images[known], x[known])
    assert not restored.spread[~mask].any()


def test_what_is_under_the_mask_changes_nothing() -> None:
    preset = Preset(num_steps=5, step_size=0.3, temperature=0.5, replicates=2)
    x, mask = images(3), one_pixel(3)
    found = [inpaint(neighbours, each, mask, preset, randn_like=seeded()) for each in (x, x.masked_fill(mask, 9.0))]
    assert torch.equal(found[0].images, found[1].images)
    assert torch.equal(found[0].spread, found[1].spread)


def test_a_single_replicate_has_no_spread() -> None:
    preset = Preset(num_steps=5, step_size=0.3, temperature=0.5, replicates=1)
    assert not inpaint(neighbours, images(2), one_pixel(2), preset).spread.any()


def test_extreme_pixels_are_made_anew_and_all_pixels_move_only_when_asked() -> None:
    """Without noise, a step at rate r leaves 1 - 4r of a white pixel among zeros, of which none was left to guess."""
    x = torch.zeros(1, 1, 5, 5)
    x[..., 2, 2] = 1.0
    preset = Preset(num_steps=1, step_size=0.2, temperature=0.5, replicates=1)
    rate = preset.drift_rate
    assert torch.equal(denoise(neighbours, x, preset, "extremes", torch.zeros_like).images, torch.zeros_like(x))
    everywhere = denoise(neighbours, x, preset, "everywhere", torch.zeros_like).images
    assert everywhere[0, 0, 2, 2] == pytest.approx(1 - 4 * rate)
    assert everywhere[0, 0, 1, 2] == pytest.approx(rate)


def test_extremes_are_black_or_white_in_every_channel() -> None:
    x = torch.zeros(1, 3, 1, 4)
    x[0, :, 0, 0], x[0, :, 0, 1] = 1.0, -1.0
    x[0, :, 0, 2] = torch.tensor([1.0, 1.0, -1.0])
    assert extremes(x)[0, 0, 0].tolist() == [True, True, False, False]


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (1, 3)])
def test_a_fill_repeats_a_flat_image_and_keeps_what_is_known(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(4, 1, *size, generator=generator) < 0.6
    mask[:, :, 0, 0] = False
    flat = torch.tensor([0.3, -0.7]).view(1, 2, 1, 1).expand(4, 2, *size)
    torch.testing.assert_close(fill(flat.masked_fill(mask, 9.0), mask), flat)
    x = torch.rand(4, 2, *size, generator=generator)
    filled, known = fill(x, mask), ~mask.expand_as(x)
    assert torch.equal(filled[known], x[known])
    assert float(filled.max()) <= float(x[known].max())


def test_a_fill_takes_near_pixels_first_and_grey_without_any() -> None:
    x = torch.linspace(-1, 1, 32).view(1, 1, 1, 32).expand(1, 1, 32, 32)
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    mask[..., 12:16] = True
    assert float((fill(x, mask) - x).abs().max()) < 0.2
    assert torch.equal(fill(x, torch.ones_like(mask)), torch.zeros_like(x))


def test_masks_are_white_where_pixels_are_lost() -> None:
    pixels = torch.tensor([[[0, 127], [128, 255]]], dtype=torch.uint8)
    assert mask_of(pixels, "m.png").tolist() == [[[False, False], [True, True]]]
    for level, message in ((0, "all 4 pixels are black, nothing is to restore"), (255, "nothing is known")):
        with pytest.raises(DataError, match=rf"^m\.png: .*{message}"):
            mask_of(torch.full_like(pixels, level), "m.png")


def test_a_spread_has_a_level_for_each_255th_of_the_range() -> None:
    assert spread_levels(torch.tensor([0.0, 2.0 / 255, 20.0 / 255, 3.0])).tolist() == [0, 1, 10, 255]


def test_the_shipped_energy_removes_salt_and_pepper_better_than_filters(
    cifar10_bundle: Bundle, cifar10_test: ImageDataset
) -> None:
    truth = from_uint8(cifar10_test.images[:10])
    corrupted = SaltAndPepper(share=0.1)(truth, Stream(("test",)))
    preset = cifar10_bundle.manifest.presets["balanced"].model_copy(update={"replicates": 1, "num_steps": 60})
    restored = denoise(cifar10_bundle.defence.energy, corrupted.images, preset, randn_like=seeded())
    own = psnr(mse(restored.images, truth))
    others = {name: psnr(mse(each, truth)) for name, each in baselines(corrupted, marked=False).items()}
    assert mean_of(own - others["median"]).low > 8.0
    assert mean_of(own - others["linear"]).low > 0.0
    assert mean_of(own - others["fill"]).low > 0.0
