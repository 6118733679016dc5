"""What the defence's gradients are worth, found out before any attack is chosen."""

import time

import torch
from torch import Tensor
from torch.nn import functional

from attacks_eval.defence import Defence
from attacks_eval.errors import GradientError
from attacks_eval.gradients import BPDA, FULL, SMOOTH, GradMode
from attacks_eval.purifiers import AutogradPurifier, EnergyPurifier, check_gradients
from models.config import Frozen
from models.pixels import from_unit
from models.streams import Stream

STRIDES = (4, 2)
FAITHFUL = 0.99
REPLICATES = 16


class GradientProbe(Frozen):
    """Measured on a few clean images, before the attacks.

    Args:
        has_energy: the purifier's steps follow an energy.
        piecewise_linear: the energy's Hessian is zero, so the exact gradient is the identity's.
        exact: the mode that stands for `full`: itself, or for a piecewise-linear energy `smooth` at the largest stride
            that keeps the gradient.
        stride_cosine: cosine between the gradients at that stride and at stride 1; 1 when the stride is 1.
        bpda_cosine: cosine between the BPDA gradient and the exact one.
        eot_cosine: cosine between two exact gradients of independent replicates.
        zero: share of images whose exact gradient is zero or not finite everywhere.
        softmax: the defence's outputs on these images are probabilities, not logits.
        steps_per_second: energy gradients of one image a second, in this process, from one BPDA gradient.
    """

    has_energy: bool = True
    piecewise_linear: bool
    exact: GradMode
    stride_cosine: float
    bpda_cosine: float
    eot_cosine: float
    zero: float
    softmax: bool
    steps_per_second: float


def probe_gradients(defence: Defence, images: Tensor, labels: Tensor, stream: Stream) -> GradientProbe:
    """Probe on images [B, C, H, W] in [0, 1].

    Raises:
        GradientError: the purifier drops its gradients silently.
    """
    purifier = defence.purifier
    if isinstance(purifier, AutogradPurifier):
        check_gradients(purifier, from_unit(images))
    has_energy = isinstance(purifier, EnergyPurifier)
    linear = isinstance(purifier, EnergyPurifier) and purifier.piecewise_linear(from_unit(images))
    if linear and isinstance(purifier, EnergyPurifier) and purifier.twin_is_blind(from_unit(images)):
        raise GradientError(
            "the energy is piecewise linear and its smooth twin is too: build its activations from torch.nn.ReLU or "
            "torch.nn.LeakyReLU, which the twin replaces"
        )
    streams = [stream.child("probe", row) for row in range(len(images))]

    def gradient(mode: GradMode, streams: list[Stream] = streams) -> Tensor:
        return defence.attack_gradient(images, labels, streams, REPLICATES, mode, "margin")[2]

    start = time.perf_counter()
    bpda = gradient(BPDA)
    seconds = time.perf_counter() - start
    reference = gradient(SMOOTH if linear else FULL)
    exact, stride_cosine = SMOOTH if linear else FULL, 1.0
    for stride in STRIDES if linear else ():
        mode = GradMode(kind="smooth", stride=stride)
        stride_cosine = _cosine(gradient(mode), reference)
        if stride_cosine >= FAITHFUL:
            exact = mode
            break
    again = gradient(exact, [stream.child("probe again", row) for row in range(len(images))])
    outputs = defence.replicate_logits(images, streams, 0, 1)[0]
    silent = ~((reference != 0) & reference.isfinite()).flatten(1).any(1)
    return GradientProbe(
        has_energy=has_energy,
        piecewise_linear=linear,
        exact=exact,
        stride_cosine=stride_cosine if exact.stride > 1 else 1.0,
        bpda_cosine=_cosine(bpda, reference),
        eot_cosine=_cosine(again, reference),
        zero=float(silent.float().mean()),
        softmax=bool((outputs >= 0).all() and torch.allclose(outputs.sum(1), torch.ones(len(outputs)).to(outputs))),
        steps_per_second=len(images) * REPLICATES * max(1, purifier.num_steps) / max(seconds, 1e-9),
    )


def _cosine(gradient: Tensor, reference: Tensor) -> float:
    """The mean over the images that the reference has a gradient for; 0 when there are none."""
    a, b = (torch.nan_to_num(each).flatten(1) for each in (gradient, reference))
    heard = (b != 0).any(1)
    return round(float(functional.cosine_similarity(a[heard], b[heard]).mean()), 4) if heard.any() else 0.0
