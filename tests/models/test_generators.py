"""Generators: the published sizes, images of every side, and batch norm whose statistics follow the weights."""

import pytest
import torch
from torch import Tensor, nn

from models.data import ImageDataset
from models.errors import NetworkError
from models.networks import build_network
from models.networks.generator import SNGANGenerator, UpBlock
from models.pixels import from_uint8

CPU = torch.device("cpu")


def generator(**arguments: object) -> SNGANGenerator:
    torch.manual_seed(0)
    network = build_network("sngan_generator", {"widths": [16, 8, 8], "latent_size": 12, **arguments})
    assert isinstance(network, SNGANGenerator)
    return network


def latents(count: int, size: int = 12, seed: int = 1) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("side", "millions"), [(32, 4.3), (64, 12.2), (128, 32.2)])
def test_sizes_and_sides_are_the_papers(side: int, millions: float) -> None:
    with torch.device("meta"):
        network = build_network(f"sngan_generator{side}", {})
        assert isinstance(network, SNGANGenerator)
        assert network(torch.empty(2, network.latent_size)).shape == (2, 3, side, side)
    assert network.image_size == side
    assert sum(each.numel() for each in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize(("widths", "side"), [([8, 8], 8), ([16, 16, 8], 16), ([8] * 4, 32)])
def test_grey_images_of_any_power_of_two(widths: list[int], side: int) -> None:
    network = generator(channels=1, widths=widths)
    images = network(latents(3) * 100)
    assert images.shape == (3, 1, side, side)
    assert 0.5 < images.abs().max().item() <= 1.0


@pytest.mark.parametrize("wrong", [{"widths": [8]}, {"widths": [8, 0]}, {"latent_size": 0}])
def test_widths_and_latents_that_make_no_image_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(NetworkError, match=str(next(iter(wrong.values()))).replace("[", r"\[")):
        generator(**wrong)


def test_latents_are_standard_normal_and_repeat_with_their_generator() -> None:
    network = generator(latent_size=100)
    first, again = (network.sample_latents(1000, torch.Generator().manual_seed(3), CPU) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == (1000, 100)
    assert abs(float(first.mean())) < 4 / 1e5**0.5
    assert float(first.var()) == pytest.approx(1.0, abs=4 * (2 / 1e5) ** 0.5)


def test_a_block_doubles_bilinearly() -> None:
    """With 3x3 convolutions that are 0 a block is its shortcut: doubling [0, 4] gives [0, 1, 3, 4]."""
    block = UpBlock(1, 1, batch_norm=False)
    for name, each in block.named_parameters():
        nn.init.constant_(each, 1.0 if name == "shortcut.weight" else 0.0)
    doubled = block(torch.tensor([[0.0, 4.0], [0.0, 4.0]])[None, None])
    assert torch.equal(doubled[0, 0], torch.tensor([0.0, 1.0, 3.0, 4.0]).expand(4, 4))


def test_without_batch_norm_an_image_depends_on_its_latent_alone_in_both_modes() -> None:
    network = generator(batch_norm=False)
    assert not list(network.buffers())
    z = latents(6)
    images = network.train()(z)
    torch.testing.assert_close(network(z[2:3]), images[2:3], atol=1e-6, rtol=0)
    assert torch.equal(network.eval()(z), images)


def test_in_training_batch_norm_follows_the_batch_whatever_the_statistics_were() -> None:
    """An untrained pass must leave nothing behind that later training passes see."""
    fresh, stale = generator(), generator()
    for name, each in stale.named_buffers():
        each.copy_(each * 7 + 1 if "running" in name else each)
    assert torch.equal(fresh(latents(16)), stale(latents(16)))


def test_statistics_follow_weights_that_change_after_an_untrained_pass() -> None:
    """Evaluation mode must show the trained generator, not its weights under the statistics of the untrained one."""
    network = generator(widths=[8, 8])
    with torch.no_grad():
        network(latents(256))
        network.project.weight.mul_(5.0)
        network.blocks[0].conv1.bias.add_(2.0)
        stale = network.eval()(latents(256, seed=2))
        network.train()
        for seed in range(60):
            network(latents(256, seed=seed + 10))
        trained = network(latents(256, seed=2))
        followed = network.eval()(latents(256, seed=2))
    assert float((followed - trained).abs().mean()) < 0.05
    assert float((stale - trained).abs().mean()) > 0.2


def test_in_evaluation_images_are_one_by_one_and_move_no_statistics() -> None:
    network = generator().train()
    network(latents(64))
    network.eval()
    before = {name: each.clone() for name, each in network.state_dict().items()}
    images = network(latents(8))
    torch.testing.assert_close(network(latents(8)[3:4]), images[3:4], atol=1e-6, rtol=0)
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_small_one_learns_real_digits_by_heart(digits_test: ImageDataset, batch_norm: bool) -> None:
    """Regression from fixed latents to images, as short-run learning trains it, in training and evaluation mode."""
    network = generator(channels=1, widths=[16, 16], latent_size=16, batch_norm=batch_norm)
    images, z = from_uint8(digits_test.images[:16]), latents(16, 16)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(150):
        loss = (network(z) - images).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    spread = float((images - images.mean(0)).square().mean())
    assert (network.eval()(z) - images).square().mean().item() < 0.1 * spread
