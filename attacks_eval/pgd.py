"""Projected gradient descent (Madry et al. 2018, arXiv 1706.06083)."""

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from attacks_eval.threat_model import ThreatModel, check_unit_range
from models.config import Frozen
from models.pixels import budget_to_unit


class PGDConfig(Frozen):
    """`attack_step` in 1/255 units."""

    steps: int = Field(default=20, ge=0)
    attack_step: float = Field(default=2.0, gt=0)
    random_start: bool = True


def pgd(
    classify: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    config: PGDConfig,
    generator: torch.Generator,
) -> Tensor:
    """Ascend the cross-entropy by signed gradients: x <- project(x + step * sign(grad)); returns the last iterate.

    Args:
        classify: [0, 1] images [B, C, H, W] -> logits [B, K], differentiable.
        generator: of the random start, uniform in the ball; on the images' device.

    Raises:
        ValueError: images outside [0, 1].
    """
    check_unit_range(images)
    step = budget_to_unit(config.attack_step)
    adversarial = images
    if config.random_start:
        noise = torch.rand(images.shape, generator=generator, device=images.device) * 2.0 - 1.0
        adversarial = threat.project(images + threat.radius * noise, images)
    for _ in range(config.steps):
        adversarial = adversarial.detach().requires_grad_(True)
        loss = functional.cross_entropy(classify(adversarial), labels, reduction="sum")
        (grad,) = torch.autograd.grad(loss, adversarial)
        adversarial = threat.project(adversarial.detach() + step * grad.sign(), images)
    return adversarial.detach()
