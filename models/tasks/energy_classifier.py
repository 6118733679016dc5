"""A conditional energy as a classifier, argmin_y E(x, y), with chains that first move the image a little.

IGEBM (arXiv 1903.08689) refines an image by a few Langevin steps within the attacker's ball before it asks
for the class. Each class moves a copy of its own, down its own energy: a label that fits finds less to mend.
"""

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from models.composed import Conditional
from models.errors import NetworkError
from models.gradients import Gradient
from models.langevin import LangevinConfig, langevin_transition
from models.networks.conditioning import classes_of
from models.networks.plain import plain_copy
from models.networks.smooth_twin import smooth_twin
from models.noise import UNSEEDED, Noise
from models.pixels import LEVEL_WIDTH
from models.precision import Precision

FITTING_STEPS = 100


class Refinement(LangevinConfig):
    """The chains of the copies; IGEBM takes 10 steps of its training's sampler.

    Args:
        budget: how far a pixel may go from the image's, in 1/255 units (IGEBM: 8).
    """

    budget: float = Field(gt=0)


class EnergyClassifier(nn.Module):
    """Logits bias[y] - E(x_y, y), [N, K], of images [N, C, H, W], or of each class's own copy [N, K * C, H, W].

    Args:
        energy: of images and labels; its weights stand still.
        bias: of the classes, [K]: energies of different classes need not have one zero. None is none.
    """

    def __init__(self, energy: nn.Module, channels: int, bias: Tensor | None = None) -> None:
        super().__init__()
        self.classes, self.channels = classes_of(energy), channels
        if self.classes < 2:
            raise NetworkError(f"a classifier needs an energy of at least 2 classes, got {self.classes}")
        self.energy = plain_copy(energy).requires_grad_(False)
        self.bias: Tensor
        self.register_buffer("bias", torch.zeros(self.classes) if bias is None else bias.detach().clone())

    def copies(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] once for each class, [N, K * C, H, W]; raises NetworkError for other channels."""
        if x.shape[1] == self.channels:
            return x.repeat(1, self.classes, 1, 1)
        if x.shape[1] == self.channels * self.classes:
            return x
        raise NetworkError(f"expected {self.channels} channels, or {self.channels} a class, got {x.shape[1]}")

    def forward(self, x: Tensor) -> Tensor:
        copies = self.copies(x)
        conditional, chains = self._each(copies)
        return self.bias - conditional(chains).float().view(len(x), self.classes)

    def potential(self, copies: Tensor) -> Tensor:
        """sum_y E(x_y, y), [N], of copies [N, K * C, H, W]: its gradient moves each copy by its own class alone."""
        conditional, chains = self._each(copies)
        return conditional(chains).view(len(copies), self.classes).sum(1)

    def twin(self, smoothing: float) -> "EnergyClassifier":
        """The same with the corners of the energy's activations rounded."""
        return EnergyClassifier(smooth_twin(self.energy, smoothing), self.channels, self.bias)

    def gradient(self, copies: Tensor, precision: Precision) -> Gradient:
        """The potential's gradient for a run of as many copies as these, of the weights as they are."""
        conditional, chains = self._each(copies)
        each = conditional.frozen(precision)

        def of(x: Tensor) -> tuple[Tensor, Tensor]:
            u, gradient = each(x.reshape(chains.shape))
            return u.view(len(x), self.classes).sum(1), gradient.reshape(x.shape)

        return of

    def _each(self, copies: Tensor) -> tuple[Conditional, Tensor]:
        labels = torch.arange(self.classes, device=copies.device).repeat(len(copies))
        return Conditional(self.energy, labels), copies.reshape(-1, self.channels, *copies.shape[2:])


def refine(
    classifier: EnergyClassifier,
    images: Tensor,
    config: Refinement,
    randn_like: Noise = UNSEEDED,
    callback: Callable[[Tensor], None] = lambda copies: None,
) -> Tensor:
    """Each class's copy [N, K * C, H, W] of images [N, C, H, W] in [-1, 1] after its steps, detached.

    Args:
        callback: told the copies before the first step and after each.
    """
    copies = classifier.copies(images).detach().contiguous()
    low, high = ball(copies, config)
    gradient = classifier.gradient(copies, config.precision)
    callback(copies)
    for _ in range(config.num_steps):
        copies, _ = langevin_transition(
            gradient,
            copies,
            config.step_size,
            config.drift_rate,
            randn_like,
            config.gradient_clamp,
            config.box,
        )
        copies = torch.minimum(torch.maximum(copies, low), high)
        callback(copies)
    return copies


def ball(centre: Tensor, config: Refinement) -> tuple[Tensor, Tensor]:
    """The least and the largest value of each element of a copy."""
    radius = config.budget * LEVEL_WIDTH
    return centre - radius, centre + radius


def fit_bias(energies: Tensor, labels: Tensor) -> Tensor:
    """The bias [K] that makes labels [N] likeliest under softmax(scale * (bias - energies [N, K])), scale fitted too.

    IGEBM learns its bias by descent on the training set; the problem is convex in scale and scale * bias, with one
    minimum, that of these energies. Only differences matter: the result has mean 0.
    """
    energies = energies.detach().double()
    unit = energies.std()
    if not bool(unit > 0):
        raise NetworkError(f"the energies of {len(energies)} images are all {float(energies.mean()):g}: no bias fits")
    scale, shift = torch.ones((), dtype=torch.float64), torch.zeros(energies.shape[1], dtype=torch.float64)
    parameters = [scale.to(energies.device).requires_grad_(), shift.to(energies.device).requires_grad_()]
    optimizer = torch.optim.LBFGS(parameters, max_iter=FITTING_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        scale, shift = parameters
        value = functional.cross_entropy(shift - scale * energies / unit, labels)
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    scale, shift = (each.detach() for each in parameters)
    if not bool(scale > 0):
        raise NetworkError(f"low energies do not mean likely classes (fitted scale {float(scale):.3g}): no bias fits")
    return ((shift - shift.mean()) * unit / scale).float()
