"""Least squares on the batches of a training set: the predictors that energies are compared with."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.console import progress_bar
from models.data import BatchPlan, TrainingSet
from models.pixels import dequantise

Parts = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Inputs [B, ...] and targets [B, ...] of a batch [B, C, H, W] in [-1, 1]."""


def regress(
    network: nn.Module, data: TrainingSet, parts: Parts, updates: int, batch_size: int, rate: float, seed: int
) -> None:
    """Minimise the mean squared error of `network` with Adam, the rate falling to 0 along a half cosine.

    The network is left in evaluation mode; where it lives is where it learns.
    """
    device = next(network.parameters()).device
    optimizer = torch.optim.Adam(network.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    generator = torch.Generator(device).manual_seed(seed)
    batches = data.batches(BatchPlan(batch_size, seed))
    network.train()
    with progress_bar("regression", updates) as progress:
        for _ in range(updates):
            inputs, targets = parts(dequantise(next(batches).to(device), generator))
            optimizer.zero_grad(set_to_none=True)
            nn.functional.mse_loss(network(inputs), targets).backward()
            optimizer.step()
            schedule.step()
            progress.advance(progress.task_ids[0])
    network.eval()
