"""IGEBM's energies (arXiv 1903.08689): their sizes by arithmetic, their conditioning, their bounded slopes."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.composed import Conditional
from models.errors import NetworkError
from models.gradients import energy_gradient, gradient_of
from models.networks import build_network
from models.networks.plain import plain_copy
from models.networks.residual_energy import ResidualEnergy
from models.networks.vector_energy import VectorEnergy

TWO_STAGES: list[tuple[int, bool]] = [(6, True), (8, True)]


def small(**arguments: Any) -> ResidualEnergy:
    torch.manual_seed(0)
    return ResidualEnergy(1, 6, TWO_STAGES, **arguments)


def seen(network: nn.Module) -> nn.Module:
    """The network with gains as they may have become: at their start the classes are alike, and blocks idle."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("gain", "shift")):
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    return network


def images(count: int, side: int = 12) -> Tensor:
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def stages(widths: tuple[int, ...], depth: int) -> list[tuple[int, bool]]:
    return [(width, number == 0) for width in widths for number in range(depth)]


@pytest.mark.parametrize(
    ("stem", "blocks", "classes", "millions"),
    [
        (128, stages((128, 256, 256), 2), 0, 5.3),  # ResNet32
        (128, stages((128, 256, 256), 2), 10, 5.3),
        (128, stages((128, 256, 512), 3), 0, 18.6),  # ResNet32Large
        (128, stages((128, 256, 512), 5), 0, 31.0),  # ResNet32Larger
        (128, stages((256, 512, 1024), 3), 1000, 89.6),  # ResNet32Wider for ImageNet
        (64, [(64, True), (128, True), (256, True), (512, True), (512, True), (512, False)], 1000, 21.2),  # ResNet128
    ],
)
def test_published_sizes_are_arithmetic(
    stem: int, blocks: list[tuple[int, bool]], classes: int, millions: float
) -> None:
    """9 ab weights a convolution from a to b channels; a shift for each channel that enters it, and a gain for each
    that leaves a second one, of every class."""
    rows, expected, inputs = max(classes, 1), 9 * 3 * stem, stem
    for outputs, _ in blocks:
        expected += 9 * inputs * outputs * (2 if inputs != outputs else 1) + 9 * outputs * outputs
        expected += rows * (inputs + outputs + outputs)
        inputs = outputs
    arguments = {"channels": 3, "stem": stem, "blocks": blocks, "classes": classes}
    with torch.device("meta"):
        network = build_network("residual", arguments | {"spectral_norm": False})
    found = sum(parameter.numel() for parameter in network.parameters())
    assert found == expected + inputs + 1
    assert round(found / 1e6, 1) == millions


@pytest.mark.parametrize("side", [8, 12, 28])
def test_an_energy_is_its_images_own(side: int) -> None:
    """Of any side, and whatever else is in the batch."""
    network, x = seen(small().eval()), images(5, side)
    together = network(x)
    assert together.shape == (5,)
    alone = torch.cat([network(x[row : row + 1]) for row in (3, 1)])
    assert torch.allclose(alone, together[[3, 1]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["residual", "vector"])
def test_each_state_is_judged_by_its_own_label(kind: str) -> None:
    torch.manual_seed(0)
    network = small(classes=3).eval() if kind == "residual" else VectorEnergy(5, [16, 16], classes=3)
    x = images(6) if kind == "residual" else torch.randn(6, 5)
    labels = torch.tensor([2, 0, 1, 1, 0, 2])
    assert torch.equal(network(x, labels), network(x, 0 * labels)), "classes are alike at the start"
    seen(network)
    mixed = network(x, labels)
    by_class = torch.stack([network(x, torch.full((6,), label)) for label in range(3)])
    assert torch.allclose(mixed, by_class[labels, torch.arange(6)], atol=1e-5)
    assert float(by_class.detach().std(0).min()) > 1e-4
    mixed[0].backward()
    gradients = [each.grad for name, each in network.named_parameters() if name.endswith("shift")]
    assert all(grad is not None and grad[2].any() and not grad[:2].any() for grad in gradients)


def test_one_row_of_a_conditional_energy_is_the_plain_one() -> None:
    """With every class's rows alike and equal to the one row, labels change nothing."""
    plain, conditional = seen(small().eval()), small(classes=4).eval()
    weights = conditional.state_dict()
    for name, tensor in plain.state_dict().items():
        weights[name] = tensor.expand_as(weights[name]) if name.endswith(("gain", "shift")) else tensor
    conditional.load_state_dict(weights)
    x = images(4)
    assert torch.allclose(conditional(x, torch.arange(4)), plain(x), atol=1e-6)


@pytest.mark.parametrize("labels", [None, torch.zeros(3, dtype=torch.int64), torch.zeros(4, 1, dtype=torch.int64)])
def test_labels_that_are_not_one_for_each_state_are_refused(labels: Tensor | None) -> None:
    with pytest.raises(NetworkError, match=r"2 classes reads \[4\] labels"):
        small(classes=2)(images(4), labels)
    with pytest.raises(NetworkError, match=r"2 classes reads \[4\] labels"):
        VectorEnergy(3, [4], classes=2)(torch.zeros(4, 3), labels)


def test_labels_for_an_energy_without_classes_are_refused() -> None:
    with pytest.raises(NetworkError, match=r"no classes, got labels of shape \[4\]"):
        small()(images(4), torch.zeros(4, dtype=torch.int64))


def test_every_convolution_has_norm_one_and_blocks_begin_as_their_shortcuts() -> None:
    network = small()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            norm = torch.linalg.matrix_norm(module.weight.flatten(1), 2)
            assert float(norm.detach()) == pytest.approx(1.0, rel=0.1)
    network.eval()
    x = images(4)
    before = network(x)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("conv2.gain"):
                assert float(parameter.abs().max()) < 2e-3
                parameter.zero_()
    assert torch.allclose(network(x), before, rtol=0.01)


def test_spectral_norm_bounds_the_slope_of_a_vector_energy() -> None:
    """With gains of 1 by the head's norm alone, SiLU being at most 1.1 steep; longer weights change nothing."""
    torch.manual_seed(0)
    network, x = VectorEnergy(20, [16, 16], spectral_norm=True), 3 * torch.randn(200, 20)
    for _ in range(30):  # a power iteration each
        network(x)
    network.eval()
    before, slopes = energy_gradient(network, x, "float32")
    assert float(slopes.norm(dim=1).max()) < 1.1**2 * float(network.head.weight.detach().norm())
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("original"):
                parameter.mul_(50.0)
    assert torch.allclose(network(x), before, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="fixed: .* no spectrum"):
        VectorEnergy(20, [16], classes=2, fixed=True, spectral_norm=True)


def test_dropout_is_for_learning_alone() -> None:
    network, x = seen(small(dropout=0.5)), images(4)
    network.eval()
    assert torch.equal(network(x), network(x))
    network.train()
    torch.manual_seed(0)
    assert not torch.allclose(network(x), network(x), rtol=1e-3)


@pytest.mark.parametrize("classes", [0, 3])
def test_chains_see_the_folded_network_in_evaluation_mode(classes: int) -> None:
    network, x = seen(small(classes=classes, dropout=0.5, activation="silu")), images(5)
    labels = torch.tensor([0, 2, 1, 1, 0])
    frozen = gradient_of(Conditional(network, labels) if classes else network, "float32")
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    energy, grad = frozen(x)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items()), "no power iteration"
    folded = plain_copy(network)
    assert not any("parametrizations" in name for name, _ in folded.named_parameters())
    network.eval()
    expected = energy_gradient(Conditional(network, labels) if classes else network, x, "float32")
    assert torch.allclose(energy, expected[0], atol=1e-5)
    assert torch.allclose(grad, expected[1], atol=1e-6)
    low, _ = gradient_of(Conditional(network, labels) if classes else network, "bfloat16")(x)
    assert torch.allclose(low, energy, rtol=0.05, atol=0.05 * float(energy.abs().max()))


def test_a_vector_energy_is_the_network_that_it_says() -> None:
    """One hidden layer, written out."""
    torch.manual_seed(0)
    network = VectorEnergy(2, [3], activation="leaky", slope=0.5)
    x = torch.randn(7, 2)
    hidden = x @ network.layers[0].layer.weight.T + network.layers[0].layer.bias  # type: ignore[operator, union-attr]
    expected = nn.functional.leaky_relu(hidden, 0.5) @ network.head.weight[0] + network.head.bias
    assert torch.allclose(network(x), expected, atol=1e-6)
