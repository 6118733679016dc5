import pytest
import torch
from torch import nn

from models.errors import NetworkError
from models.networks import ARCHITECTURES, build_network, load_weights
from models.networks.energy import SmoothLeakyReLU


def parameters(name: str, **arguments: object) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_network(name, arguments).parameters())


@pytest.mark.parametrize(
    ("name", "millions"), [("light", 0.69), ("sngan32", 4.20), ("sngan64", 19.5), ("sngan128", 38.4)]
)
def test_energies_have_the_published_sizes(name: str, millions: float) -> None:
    assert parameters(name) / 1e6 == pytest.approx(millions, rel=0.01)


def test_classifier_has_at_most_a_million_parameters() -> None:
    assert parameters("compact_resnet", stem=32, widths=[64, 128, 128]) <= 1_000_000


@pytest.mark.parametrize(("name", "size"), [("light", 32), ("sngan32", 32), ("sngan64", 64), ("sngan128", 128)])
def test_energy_is_one_scalar_an_image_whatever_its_neighbours(name: str, size: int) -> None:
    torch.manual_seed(0)
    network = build_network(name, {"width": 32})
    images = torch.randn(3, 3, size, size)
    energy = network(images)
    assert energy.shape == (3,)
    assert torch.allclose(network(images[1:2]), energy[1:2], atol=1e-6)


@pytest.mark.parametrize("size", [8, 16, 64])
def test_light_energy_reads_other_sizes_and_channels(size: int) -> None:
    network = build_network("light", {"channels": 1, "image_size": size, "width": 8})
    assert network(torch.randn(2, 1, size, size)).shape == (2,)


def test_smooth_leaky_relu_is_smooth_at_zero_and_leaky_far_from_it() -> None:
    smooth, leaky = SmoothLeakyReLU(0.05, 0.01), nn.LeakyReLU(0.05)
    far = torch.tensor([-3.0, 4.0])
    assert torch.allclose(smooth(far), leaky(far), atol=1e-4)
    x = torch.zeros(1, requires_grad=True)
    (slope,) = torch.autograd.grad(smooth(x), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, x)
    assert slope.item() == pytest.approx((1 + 0.05) / 2)
    assert curvature.item() == pytest.approx((1 - 0.05) / 2 / 0.01)


def test_a_smooth_twin_takes_the_same_weights_and_nearly_the_same_energy() -> None:
    torch.manual_seed(0)
    leaky = build_network("light", {"width": 16})
    twin = build_network("light", {"width": 16, "activation": "smooth_leaky", "smoothing": 1e-4})
    load_weights(twin, leaky.state_dict(), "leaky")
    images = torch.randn(4, 3, 32, 32)
    assert torch.allclose(twin(images), leaky(images), atol=1e-3)


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(NetworkError, match="'resnet50'.*compact_resnet"):
        build_network("resnet50", {})
    with pytest.raises(NetworkError, match="'gelu'.*silu"):
        build_network("light", {"activation": "gelu"})
    with pytest.raises(NetworkError, match="depth"):
        build_network("light", {"depth": 3})
    with pytest.raises(NetworkError, match="power of two.*24"):
        build_network("light", {"image_size": 24})


def test_weights_load_strictly() -> None:
    network = build_network("light", {"width": 8})
    weights = network.state_dict()
    wrong = dict(weights)
    wrong["layers.0.bias"] = torch.zeros(3)
    del wrong["layers.2.bias"]
    wrong["extra"] = torch.zeros(1)
    with pytest.raises(NetworkError) as caught:
        load_weights(network, wrong, "file.safetensors")
    message = str(caught.value)
    for part in (
        "file.safetensors",
        "missing layers.2.bias",
        "unexpected extra",
        "layers.0.bias has shape [3], expected [8]",
    ):
        assert part in message


def test_registry_names_build() -> None:
    needed = {
        "residual": {"channels": 3, "stem": 8, "blocks": [[8, True]]},
        "vector": {"size": 2, "widths": [8]},
        "mixed_classifier": {"robust": {}, "accurate": {}, "robust_weight": 0.6, "sharpness": 1.0},
    }
    with torch.device("meta"):
        for name in ARCHITECTURES:
            assert isinstance(build_network(name, needed.get(name, {})), nn.Module)
