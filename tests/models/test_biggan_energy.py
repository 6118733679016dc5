"""The large energy: the paper's blocks, exact spectral norms, and chains that leave it as it is."""

from collections.abc import Iterator

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional

from models.errors import NetworkError
from models.gradients import FrozenAutograd, energy_gradient, freeze
from models.langevin import LangevinConfig, run_langevin
from models.networks import build_network, load_weights
from models.networks.biggan_energy import BigGANEnergy, Bottleneck, SelfAttention
from models.networks.plain import is_plain, plain_copy
from models.networks.smooth_twin import smooth_twin
from models.training.average import WeightAverage
from models.training.warm_start import WarmStart, warm_start_loss

SAMPLER = LangevinConfig(num_steps=3, step_size=0.02, temperature=1e-3)
# Brock et al. (2019), appendix B, BigGAN-deep, 256x256, discriminator: (input, output channels, halves the side).
BLOCKS = [
    *[(1, 2, True), (2, 2, False), (2, 4, True), (4, 4, False), (4, 8, True), (8, 8, False)],
    *[(8, 8, True), (8, 8, False), (8, 16, True), (16, 16, False), (16, 16, True), (16, 16, False)],
]


@pytest.fixture
def energy() -> BigGANEnergy:
    """Small, in training mode; each orthogonal weight with a direction that stands out, which no pass has seen yet."""
    torch.manual_seed(0)
    network = BigGANEnergy(width=8)
    with torch.no_grad():
        for each in network.parameters():
            if each.dim() > 1:
                matrix = each.flatten(1)
                left, right = (functional.normalize(torch.randn(size), dim=0) for size in matrix.shape)
                each.add_(torch.outer(left, right).view_as(each))
            else:
                each.add_(0.1 * torch.randn_like(each))
        attention(network).gain.fill_(0.7)
    return network


def attention(network: BigGANEnergy) -> SelfAttention:
    (found,) = (module for module in network.layers if isinstance(module, SelfAttention))
    return found


def images(count: int, side: int = 64, seed: int = 1) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def relative_error(found: Tensor, exact: Tensor) -> float:
    return float(((found - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)).max())


def normalised_layers(network: BigGANEnergy) -> Iterator[nn.Conv2d | nn.Linear]:
    return (module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear))


def settle(network: BigGANEnergy) -> None:
    """Power iterations until the singular vectors stand still: only training passes make them."""
    network.train()
    with torch.no_grad():
        for _ in range(30):
            for layer in normalised_layers(network):
                _ = layer.weight


def state_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in network.state_dict().items()}


def assert_unmoved(network: nn.Module, before: dict[str, Tensor]) -> None:
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())


def test_the_average_of_weights_keeps_the_spectral_norm_at_one() -> None:
    """As the live network has it; averaged singular vectors let it grow to several."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 8, 3)))
    average = WeightAverage(layer, 0.99)
    for _ in range(200):
        with torch.no_grad():
            layer[0].parametrizations.weight.original.add_(0.05 * torch.randn(8, 8, 3, 3))
        layer(torch.zeros(1, 8, 3, 3))
        average.update(layer)
    assert float(torch.linalg.matrix_norm(average.network[0].weight.flatten(1), 2)) < 1.1


def test_parameters_are_those_of_the_papers_blocks() -> None:
    def block(inputs: int, outputs: int) -> int:
        inside, new = inputs // 4, outputs - inputs
        main = (inputs * inside + inside) + 2 * (9 * inside**2 + inside) + (inside * outputs + outputs)
        return main + (inputs * new + new if new else 0)

    with torch.device("meta"):
        found = sum(each.numel() for each in BigGANEnergy(spectral_norm=False).parameters())
    attended = 4 * 48
    attending = 2 * attended * attended // 8 + 2 * attended * attended // 2 + 1
    blocks = sum(block(48 * inputs, 48 * outputs) for inputs, outputs, _ in BLOCKS)
    assert found == (27 * 48 + 48) + blocks + attending + 16 * 48
    assert found == 4_289_605


def test_at_224_pixels_sides_halve_and_attention_looks_at_56() -> None:
    sides: list[tuple[str, int]] = []
    with torch.device("meta"):
        network = BigGANEnergy(width=8, spectral_norm=False)
        for layer in network.layers:
            layer.register_forward_hook(lambda module, _, out: sides.append((type(module).__name__, out.shape[-1])))
        assert network(torch.empty(2, 3, 224, 224)).shape == (2,)
    assert [side for name, side in sides if name == "Bottleneck"] == [112, 112, 56, 56, 28, 28, 14, 14, 7, 7, 4, 4]
    assert [side for name, side in sides if name == "SelfAttention"] == [56]


def test_halving_an_odd_side_drops_no_pixel() -> None:
    block = Bottleneck(4, 4, down=True, activation=nn.ReLU(), spectral_norm=False)
    for each in block.parameters():
        nn.init.zeros_(each)
    x = torch.randn(1, 4, 7, 7, requires_grad=True)
    halved = block(x)
    assert halved.shape == (1, 4, 4, 4)
    assert torch.equal(halved[..., 3, 3], x[..., 6, 6])
    torch.testing.assert_close(halved[..., 0, 0], x[..., :2, :2].mean(dim=(2, 3)))


def test_energy_is_one_scalar_an_image_whatever_its_neighbours(energy: BigGANEnergy) -> None:
    x = images(3)
    u = energy.eval()(x)
    assert u.shape == (3,)
    torch.testing.assert_close(energy(x[1:2]), u[1:2], atol=1e-6, rtol=1e-5)


def test_the_definition_with_exact_singular_values(energy: BigGANEnergy) -> None:
    """The whole network from the paper's text, every weight divided by its largest singular value from an SVD."""
    settle(energy)
    layers = iter(list(energy.layers))

    def apply(layer: nn.Module, x: Tensor) -> Tensor:
        assert isinstance(layer, nn.Conv2d)
        original = layer.parametrizations.weight.original
        weight = original / torch.linalg.matrix_norm(original.flatten(1), 2)
        return functional.conv2d(x, weight, layer.bias, padding=weight.shape[-1] // 2)

    def attend(layer: SelfAttention, x: Tensor) -> Tensor:
        query, key, value = (apply(each, x) for each in (layer.query, layer.key, layer.value))
        key, value = functional.max_pool2d(key, 2), functional.max_pool2d(value, 2)
        scores = torch.einsum("bcij,bckl->bijkl", query, key)
        weights = scores.flatten(3).softmax(3).unflatten(3, scores.shape[3:])
        return x + layer.gain * apply(layer.out, torch.einsum("bijkl,bckl->bcij", weights, value))

    x = images(2)
    state = apply(next(layers), x)
    for number, (_, _, down) in enumerate(BLOCKS):
        layer = next(layers)
        if number == 4:
            assert isinstance(layer, SelfAttention)
            state, layer = attend(layer, state), next(layers)
        assert isinstance(layer, Bottleneck)
        hidden = apply(layer.narrow, state.relu())
        hidden = apply(layer.conv2, apply(layer.conv1, hidden.relu()).relu()).relu()
        if down:
            hidden, state = functional.avg_pool2d(hidden, 2), functional.avg_pool2d(state, 2)
        if layer.append is not None:
            state = torch.cat([state, apply(layer.append, state)], dim=1)
        state = state + apply(layer.widen, hidden)
    head = energy.head.parametrizations.weight.original
    expected = state.relu().mean(dim=(2, 3)) @ (head / head.norm())[0]
    torch.testing.assert_close(energy.eval()(x), expected, atol=1e-5, rtol=1e-3)


@torch.no_grad()
def test_training_passes_bring_every_spectral_norm_to_one(energy: BigGANEnergy) -> None:
    def norms() -> Tensor:
        energy.eval()
        return torch.stack([torch.linalg.matrix_norm(each.weight.flatten(1), 2) for each in normalised_layers(energy)])

    assert norms().median() > 1.2
    settle(energy)
    torch.testing.assert_close(norms(), torch.ones(len(norms())), atol=1e-3, rtol=0)


def test_a_training_pass_moves_the_singular_vectors_and_chains_do_not(energy: BigGANEnergy) -> None:
    before = state_of(energy)
    run_langevin(energy, images(2, 32), SAMPLER)
    run_langevin(energy.requires_grad_(False), images(2, 32), SAMPLER)
    assert_unmoved(energy, before)
    assert energy.training
    energy(images(2, 32))
    moved = {name for name, each in energy.state_dict().items() if not torch.equal(each, before[name])}
    assert moved
    assert all(name.endswith(("_u", "_v")) for name in moved)


@pytest.mark.parametrize("trains", [True, False])
def test_the_frozen_gradient_is_that_of_evaluation_mode(energy: BigGANEnergy, trains: bool) -> None:
    x = images(3)
    before = state_of(energy)
    frozen = freeze(energy.train(trains).requires_grad_(trains), "float32")
    assert isinstance(frozen, FrozenAutograd)
    (u, grad), (exact_u, exact) = frozen(x), energy_gradient(energy.eval(), x, "float32")
    torch.testing.assert_close(u, exact_u, rtol=1e-5, atol=1e-6)
    assert relative_error(grad, exact) < 1e-5
    assert_unmoved(energy, before)
    autocast = relative_error(energy_gradient(energy, x, "bfloat16")[1], exact)
    assert 1e-4 < relative_error(freeze(energy, "bfloat16")(x)[1], exact) < 1.5 * autocast


def test_a_frozen_step_computes_no_weight(energy: BigGANEnergy) -> None:
    computed: list[str] = []
    for name, module in energy.named_modules():
        if name.endswith("parametrizations.weight"):
            module.register_forward_hook(lambda *_, name=name: computed.append(name))
    frozen = freeze(energy, "bfloat16")
    assert len(computed) == len(set(computed)) == len(list(normalised_layers(energy)))
    computed.clear()
    frozen(images(2, 32))
    assert not computed
    energy(images(2, 32))
    assert computed


def test_a_plain_copy_leaves_its_original_whole_and_training(energy: BigGANEnergy) -> None:
    """PyTorch's own removal from a deep copy takes the weights' properties from the original as well."""
    x = images(2, 32)
    plain = plain_copy(energy)
    assert is_plain(plain)
    assert not is_plain(energy)
    assert energy.training
    assert [type(each) for each in normalised_layers(plain)].count(nn.Linear) == 1
    torch.testing.assert_close(plain(x), energy.eval()(x), rtol=1e-5, atol=1e-6)
    energy.train()(x).sum().backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in energy.parameters())
    with torch.no_grad():
        energy.layers[0].parametrizations.weight.original.mul_(-1.0)
    assert not torch.allclose(plain(x), energy.eval()(x), rtol=1e-3)
    torch.testing.assert_close(plain_copy(energy)(x), energy(x), rtol=1e-5, atol=1e-6)


def test_without_spectral_norm_the_weights_are_plain_and_orthogonal() -> None:
    network = BigGANEnergy(width=8, spectral_norm=False)
    assert is_plain(network)
    for layer in normalised_layers(network):
        matrix = layer.weight.flatten(1)
        gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
        torch.testing.assert_close(gram, torch.eye(len(gram)), atol=1e-5, rtol=0)


def test_attention_without_queries_adds_the_mean() -> None:
    block = SelfAttention(8, spectral_norm=False)
    nn.init.zeros_(block.query.weight)
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(block(x), x)  # the gain starts at 0
    with torch.no_grad():
        block.gain.fill_(2.0)
    mean = functional.max_pool2d(block.value(x), 2).mean(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(block(x), x + 2.0 * block.out(mean).expand_as(x))


def test_a_smooth_twin_and_second_derivatives(energy: BigGANEnergy) -> None:
    x = images(2, 32)
    energy.eval()
    torch.testing.assert_close(smooth_twin(energy, 1e-5)(x), energy(x), atol=1e-4, rtol=1e-3)
    warm_start_loss(energy, x, SAMPLER, WarmStart(updates=1), torch.Generator().manual_seed(0)).backward()
    query = attention(energy).query.parametrizations.weight.original
    assert query.grad is not None
    assert query.grad.isfinite().all()
    assert float(query.grad.abs().max()) > 0.0


def test_weights_survive_a_safetensors_file(energy: BigGANEnergy) -> None:
    again = build_network("biggan", {"width": 8})
    load_weights(again, load(save(energy.state_dict())), "file")
    x = images(2, 32)
    assert torch.equal(again.eval()(x), energy.eval()(x))


def test_a_width_that_attention_can_not_divide_is_named() -> None:
    with pytest.raises(NetworkError, match="multiple of 4, got 6"):
        build_network("biggan", {"width": 6})
