"""An energy and its input gradient as one ONNX graph: the strongest float32 rival that a CPU user can install.

PyTorch traces its own backward pass; the operations of it that ONNX lacks are said in those that it has.
"""

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import onnxruntime
import torch
from torch import Tensor, nn
from torch._decomp import get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

ATEN = torch.ops.aten


class OnnxGradient:
    """dU/dx of batches of exactly the example's shape, by ONNX Runtime in float32 on `threads` threads."""

    def __init__(self, network: nn.Module, example: Tensor, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        graph = export_gradient(network, example)
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def __call__(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] float32, contiguous -> dU/dx of the same shape."""
        return torch.from_numpy(self._session.run(["gradient"], {"x": x.numpy()})[0])


def export_gradient(network: nn.Module, example: Tensor) -> bytes:
    """The ONNX file of x -> (energy [B], gradient [B, C, H, W]) for the example's shape."""

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_(True)
        energy = network(x)
        (grad,) = torch.autograd.grad(energy.sum(), x)
        return energy.detach(), grad

    # The exporter tells of torchvision's absence and of its own deprecations, neither of which concerns the graph.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    table: dict[Any, Any] = get_decompositions([ATEN.leaky_relu_backward, ATEN.threshold_backward])
    table |= {ATEN.convolution_backward.default: convolution_backward}
    table |= {ATEN.avg_pool2d_backward.default: avg_pool2d_backward}
    traced = make_fx(both, decomposition_table=table)(example)
    names: dict[str, Any] = {"input_names": ["x"], "output_names": ["energy", "gradient"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(traced, (example,), dynamo=True, verbose=False, **names)
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


def convolution_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    *_: object,
) -> tuple[Tensor, None, None]:
    """The input's gradient alone; for square kernels without dilation or groups.

    With stride 1 that is a convolution with the kernel turned around, for which ONNX Runtime has much faster code than
    for transposed ones.
    """
    if stride[0] == 1:
        turned = weight.flip(2, 3).transpose(0, 1)
        return functional.conv2d(grad, turned, None, 1, weight.shape[-1] - 1 - padding[0]), None, None
    reached = (grad.shape[-1] - 1) * stride[0] - 2 * padding[0] + weight.shape[-1]
    left_out = x.shape[-1] - reached  # what a stride did not reach
    return functional.conv_transpose2d(grad, weight, None, stride, padding, left_out), None, None


def avg_pool2d_backward(grad: Tensor, x: Tensor, kernel: Sequence[int], *_: object) -> Tensor:
    """Each pixel's share of its window, for windows that tile the image; a remainder at its end gets nothing."""
    spread = grad.repeat_interleave(kernel[0], -2).repeat_interleave(kernel[1], -1) / (kernel[0] * kernel[1])
    return functional.pad(spread, (0, x.shape[-1] - spread.shape[-1], 0, x.shape[-2] - spread.shape[-2]))
