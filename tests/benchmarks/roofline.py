"""What a network's gradient costs in arithmetic and memory, and how much arithmetic the machine can do.

FLOPs of an image-step: 2 (a multiply and an add) x 2 (forward, input gradient) x multiply-adds of the forward pass, of
convolutions and linear maps, as the network is published: who folds a pooling into a convolution does fewer, and its
share of the peak may pass 1. Bytes of an image-step: 2 (forward, input gradient) x sum over those layers of (elements
read + elements written + weights / batch) x bytes of an element: each layer's weights and activations move once per
pass, and everything between the layers is taken to be fused into them. Arithmetic intensity is FLOPs over bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ONEDNN = torch.ops.mkldnn
PEAK_SIDE = 2048
PEAK_FLOPS = 2 * PEAK_SIDE**3


@dataclass(frozen=True)
class Work:
    """Totals over the layers: of one image `multiply_adds` and `activations` read or written; `weights`, elements."""

    multiply_adds: int
    activations: int
    weights: int

    @property
    def flops(self) -> int:
        """Of one image-step."""
        return 4 * self.multiply_adds

    def intensity(self, batch: int, dtype: torch.dtype) -> float:
        """FLOPs a byte, when `batch` images share the weights."""
        return self.flops / (2 * dtype.itemsize * (self.activations + self.weights / batch))


def count_work(network: nn.Module, image: Tensor) -> Work:
    """The work of each convolution and linear map on one image [1, C, H, W]; their biases are left out."""
    layers: list[Work] = []

    def count(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        weight = layer.weight
        positions = output.numel() // len(weight)
        layers.append(Work(positions * weight.numel(), inputs[0].numel() + output.numel(), weight.numel()))

    hooks = [each.register_forward_hook(count) for each in network.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        network(image)
    for hook in hooks:
        hook.remove()
    return Work(*(sum(getattr(each, name) for each in layers) for name in ("multiply_adds", "activations", "weights")))


def matrix_product(dtype: torch.dtype) -> Callable[[int], None]:
    """Multiplies two square matrices as often as asked, PEAK_FLOPS each.

    By oneDNN, one of them packed beforehand, as convolutions have it: the highest peak that is found. `torch.mm` asks
    MKL in float32, which is half as fast on AMD, and gradients would pass its peak.
    """
    a, b = torch.randn(2, PEAK_SIDE, PEAK_SIDE).to(dtype)
    packed = ONEDNN._reorder_linear_weight(b, PEAK_SIDE)

    def run(times: int) -> None:
        for _ in range(times):
            ONEDNN._linear_pointwise(a, packed, None, "none", [], "")

    return run
