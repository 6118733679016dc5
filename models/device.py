"""Devices by name, for programs; library code uses its tensors' device."""

import torch

from models.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """`auto` is a GPU when there is one; a GPU asked for by name and absent is an error, never a CPU run."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {name!r}; expected auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name!r} is not supported; expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(f"device {name!r} was asked for, but {torch.cuda.device_count()} CUDA devices are available")
    return device
