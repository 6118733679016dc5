"""Purifiers as the adversary holds them: run without a record, or with one that gradients can be pulled back along."""

from collections.abc import Callable
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from attacks_eval.errors import GradientError, QuestionError
from attacks_eval.gradients import GradMode, hessian_vanishes, pull_back_exactly, pull_back_smoothly
from models.langevin import LangevinInfo
from models.networks.smooth_twin import smooth_twin
from models.noise import Noise
from models.purifier import Preset, PurifiedClassifier
from models.streams import ChainNoise, Stream

PullBack = Callable[[Tensor], Tensor]
"""Gradients [N, C, H, W] with respect to the purified images, to gradients with respect to the images."""


class Purifier(Protocol):
    """Images [N, C, H, W] in [-1, 1] to purified ones; `noise` has one stream an image."""

    num_steps: int

    def run(self, x: Tensor, noise: ChainNoise) -> Tensor:
        """The purified images, detached."""
        ...

    def record(self, x: Tensor, noise: ChainNoise, mode: GradMode) -> tuple[Tensor, PullBack]:
        """The purified images, detached, and how gradients go back; raises QuestionError for a mode it lacks."""
        ...


@runtime_checkable
class EnergyPurifier(Purifier, Protocol):
    """One whose steps follow an energy, and which has a smooth twin of it where the energy is piecewise linear."""

    def piecewise_linear(self, x: Tensor) -> bool:
        """Whether the energy's Hessian is zero at images x, so that `full` is blind."""
        ...

    def twin_is_blind(self, x: Tensor) -> bool:
        """Whether the twin's is zero there too."""
        ...


class NoPurifier:
    """A bare classifier."""

    num_steps = 0

    def run(self, x: Tensor, noise: ChainNoise) -> Tensor:
        """x itself."""
        return x

    def record(self, x: Tensor, noise: ChainNoise, mode: GradMode) -> tuple[Tensor, PullBack]:
        """x itself, and the identity: every mode is exact."""
        return x, lambda v: v


class LangevinPurifier:
    """The defence's own chain, as served: same sampler, same precision.

    Args:
        smoothing: how far the twin rounds the corners of the energy's activations.
    """

    def __init__(self, defence: PurifiedClassifier, preset: Preset, smoothing: float = 0.01) -> None:
        self.defence, self.preset, self.num_steps = defence, preset, preset.num_steps
        self.smoothing = smoothing
        self.twin: nn.Module = smooth_twin(defence.energy, smoothing)

    def noise_of_steps(self, noise: ChainNoise) -> ChainNoise:
        """The noise as the chain's steps get it: as it is."""
        return noise

    def run(self, x: Tensor, noise: ChainNoise) -> Tensor:
        """The chains' last states."""
        return self.defence.purify(x, self.preset, self.noise_of_steps(noise).sequence())

    def record(self, x: Tensor, noise: ChainNoise, mode: GradMode) -> tuple[Tensor, PullBack]:
        """The chains' last states; all states are kept unless the mode is bpda (K x 4 bytes x the image's size)."""
        if mode.kind == "bpda":
            return self.run(x, noise), lambda v: v
        noise = self.noise_of_steps(noise)
        states = [x.detach().contiguous()]  # as the chain has it, so that the replay takes the same kernels

        def keep(step: int, state: Tensor, info: LangevinInfo) -> None:
            states.append(state)

        purified = self.defence.purify(x, self.preset, noise.sequence(), keep)
        if mode.kind == "full":
            return purified, lambda v: pull_back_exactly(self.defence.energy, states, noise, self.preset, mode.last, v)
        return purified, lambda v: pull_back_smoothly(self.twin, states, self.preset, mode, v)

    def piecewise_linear(self, x: Tensor) -> bool:
        """Whether the energy's Hessian is zero at x, so that `full` is `bpda`."""
        return hessian_vanishes(self.defence.energy, x)

    def twin_is_blind(self, x: Tensor) -> bool:
        """Whether the smooth twin's is zero too."""
        return hessian_vanishes(self.twin, x)


DETACHED = (
    "the purifier detaches its input, so autograd cannot follow it: attack it with bpda, or give it a "
    "differentiable form"
)


def _through_autograd(purified: Tensor, x: Tensor, v: Tensor) -> Tensor:
    (pulled,) = torch.autograd.grad(purified, x, v, allow_unused=True)
    if pulled is None:
        raise GradientError(DETACHED)
    return pulled


class AutogradPurifier:
    """Any other purifier that autograd can follow, such as one made for a comparison or a test.

    Args:
        function: (x in [-1, 1], noise) -> purified; all its randomness must come from `noise`.
    """

    num_steps = 1

    def __init__(self, function: Callable[[Tensor, Noise], Tensor]) -> None:
        self.function = function

    @torch.no_grad()
    def run(self, x: Tensor, noise: ChainNoise) -> Tensor:
        """function(x), detached."""
        return self.function(x, noise.sequence())

    def record(self, x: Tensor, noise: ChainNoise, mode: GradMode) -> tuple[Tensor, PullBack]:
        """function(x) and its autograd gradient (`full`) or the identity (`bpda`)."""
        if mode.kind == "bpda":
            return self.run(x, noise), lambda v: v
        if str(mode) != "full":
            raise QuestionError(f"gradient mode {mode} needs a Langevin chain; this purifier has bpda and full")
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            purified = self.function(x, noise.sequence())
        if not purified.requires_grad:
            raise GradientError(DETACHED)
        return purified.detach(), partial(_through_autograd, purified, x)


def check_gradients(purifier: Purifier, x: Tensor, width: float = 1e-3, tolerance: float = 0.05) -> None:
    """Refuse a purifier whose `full` gradient is not the gradient of what it does.

    `autograd.grad` without `create_graph=True` inside a purifier drops a term without a word. With J the purifier's
    Jacobian, u a random direction and r = J u by central differences of the same noise, |r|^2 = <J^T r, u>. A gradient
    that vanishes altogether is left to the indicators.

    Raises:
        GradientError: the two sides differ by more than `tolerance`.
    """
    noise = ChainNoise([Stream(("check", row)) for row in range(len(x))])
    u = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    response = (purifier.run(x + width * u, noise) - purifier.run(x - width * u, noise)) / (2 * width)
    _, pull_back = purifier.record(x, noise, GradMode(kind="full"))
    pulled = pull_back(response)
    if not pulled.any():
        return
    expected = response.flatten(1).square().sum(1)
    off = (pulled * u).flatten(1).sum(1) - expected
    wrong = float((off / expected.clamp(min=1e-12)).abs().max())
    if wrong > tolerance:
        raise GradientError(
            f"the purifier drops gradients: autograd and its response to a change of its input differ by "
            f"{100 * wrong:.0f} %; create inner gradients with create_graph=True"
        )
