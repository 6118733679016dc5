"""A conditional energy as its attacker meets it: argmin_y E(x, y) after refinement, as a purifier and a classifier.

The purifier gives a copy of the image for each class, stacked by channels; the classifier reads copies, or an image
that no chain has moved: so that an attack on the bare classifier is the one of IGEBM's code (arXiv 1903.08689), which
never sees the refinement.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from attacks_eval.defence import Defence
from attacks_eval.gradients import GradMode, gradient_with_graph, hessian_product, hessian_vanishes
from attacks_eval.purifiers import PullBack
from models.streams import ChainNoise
from models.tasks.energy_classifier import EnergyClassifier, Refinement, ball, refine


class RefiningPurifier:
    """Images [N, C, H, W] to each class's refined copy [N, K * C, H, W].

    Args:
        smoothing: how far the twin rounds the corners of the energy's activations.
    """

    def __init__(self, classifier: EnergyClassifier, config: Refinement, smoothing: float = 0.01) -> None:
        self.classifier, self.config, self.num_steps = classifier, config, config.num_steps
        self.twin = classifier.twin(smoothing)

    def run(self, x: Tensor, noise: ChainNoise) -> Tensor:
        """The copies at the end of their chains."""
        return refine(self.classifier, x, self.config, noise.sequence())

    def record(self, x: Tensor, noise: ChainNoise, mode: GradMode) -> tuple[Tensor, PullBack]:
        """The copies, and the sum over them of what goes back along each; all states are kept unless the mode is bpda.

        The identity of `bpda` is from a copy to the image that it was.
        """
        if mode.kind == "bpda":
            return self.run(x, noise), self._to_image
        states: list[Tensor] = []
        refined = refine(self.classifier, x, self.config, noise.sequence(), states.append)
        judge = self.classifier if mode.kind == "full" else self.twin
        return refined, lambda v: self._to_image(pull_back(judge, states, self.config, mode, v))

    def piecewise_linear(self, x: Tensor) -> bool:
        """Whether the energy's Hessian is zero at x, so that `full` sees nothing of the steps but where they end."""
        return hessian_vanishes(self.classifier.potential, self.classifier.copies(x))

    def twin_is_blind(self, x: Tensor) -> bool:
        """Whether the smooth twin's is zero too."""
        return hessian_vanishes(self.twin.potential, self.classifier.copies(x))

    def _to_image(self, v: Tensor) -> Tensor:
        gradient: Tensor = v.unflatten(1, (self.classifier.classes, -1)).sum(1)
        return gradient


def energy_defence(classifier: EnergyClassifier, config: Refinement, replicates: int = 1) -> Defence:
    """The defence whose answer is the mean logits of `replicates` refinements."""
    return Defence(RefiningPurifier(classifier, config), classifier, replicates, device=classifier.bias.device)


def pull_back(
    classifier: EnergyClassifier, states: Sequence[Tensor], config: Refinement, mode: GradMode, v: Tensor
) -> Tensor:
    """v [N, K * C, H, W] at the copies' ends pulled back to the image that each of them was.

    A step is x + c clamp(-dU/dx) + noise, brought back into the ball about x_0. Where it stops at the ball's edge the
    gradient goes to x_0 itself; elsewhere v <- v - c H m v, m 1 where dU/dx is not clamped. With a stride, the state in
    the middle of each group of steps speaks for the group.
    """
    low, high = ball(states[0], config)
    at_edge, total = torch.zeros_like(v), len(states) - 1
    steps = range(total - 1, total - 1 - min(total, mode.last or total), -1)
    for start in range(0, len(steps), mode.stride):
        group = steps[start : start + mode.stride]
        within = torch.stack([(states[k + 1] > low) & (states[k + 1] < high) for k in group]).all(0)
        at_edge, v = at_edge + v * ~within, v * within
        if config.box is not None:
            v = v * torch.stack([states[k + 1].abs() < config.box for k in group]).all(0)
        x, gradient = gradient_with_graph(classifier.potential, states[group[len(group) // 2]], config.precision)
        clamp = config.gradient_clamp
        followed = v if clamp is None else v * (gradient.detach().abs() < clamp)
        v = v - len(group) * config.drift_rate * hessian_product(x, gradient, followed)
    return v + at_edge
