"""A classifier that runs in ONNX Runtime: the bundle's own export, or one that users bring."""

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from models.errors import NetworkError

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxClassifier(nn.Module):
    """[B, C, H, W] float32 -> logits [B, K]; no gradients.

    Args:
        graph: the bytes of an ONNX file with one input and one output. Read from memory, so that a graph can not
            name other files.
        device: where it runs; asking for a GPU that ONNX Runtime can not use is an error.
        threads: 0 lets ONNX Runtime choose.
    """

    def __init__(self, graph: bytes, device: torch.device, threads: int = 0) -> None:
        super().__init__()
        provider = PROVIDERS.get(device.type)
        if provider is None or provider not in onnxruntime.get_available_providers():
            raise NetworkError(
                f"ONNX Runtime has no provider for device {device.type!r}; "
                f"available: {', '.join(onnxruntime.get_available_providers())} (extras: cpu, gpu)"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self.session = onnxruntime.InferenceSession(graph, options, providers=[provider])
        except Exception as error:  # ONNX Runtime's own errors share no public base class
            raise NetworkError(f"not a usable ONNX classifier: {error}") from error
        if provider not in self.session.get_providers():
            raise NetworkError(f"ONNX Runtime fell back from {provider} to {self.session.get_providers()}")
        if len(self.session.get_inputs()) != 1 or len(self.session.get_outputs()) != 1:
            raise NetworkError("an ONNX classifier must have one input and one output, the logits")
        batch = self.session.get_inputs()[0].shape[0]
        if isinstance(batch, int) and batch != 1:
            raise NetworkError(f"the ONNX classifier reads batches of exactly {batch}; export it with any batch size")
        self.one_by_one = isinstance(batch, int)

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            raise NetworkError("an ONNX classifier has no gradients; use the bundle's torch classifier")
        if self.one_by_one and len(x) > 1:
            return torch.cat([self(image) for image in x.split(1)])
        name = self.session.get_inputs()[0].name
        pixels = np.ascontiguousarray(x.detach().float().cpu().numpy())
        try:
            (logits,) = self.session.run(None, {name: pixels})
        except Exception as error:  # ONNX Runtime's own errors share no public base class
            raise NetworkError(f"the ONNX classifier refused an input of shape {list(x.shape)}: {error}") from error
        return torch.from_numpy(logits).to(x.device)
