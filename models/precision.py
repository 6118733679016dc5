"""Mixed precision by name, as recipes write it."""

from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]

DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """A context in which networks compute in `precision`; tensors made outside keep theirs."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")
