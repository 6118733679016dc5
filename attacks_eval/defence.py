"""The defence as its attacker meets it: [0, 1] images in, logits of replicates out, gradients in a named mode."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attacks_eval.errors import DefenceError, QuestionError
from attacks_eval.gradients import GradMode
from attacks_eval.losses import LossName, attack_loss
from attacks_eval.purifiers import LangevinPurifier, NoPurifier, PullBack, Purifier
from attacks_eval.threat_model import check_unit_range
from models.langevin import BATCH_MULTIPLE
from models.pixels import from_unit, from_unit_unbounded, to_unit
from models.purifier import CHAINS_PER_BATCH, Preset, PurifiedClassifier, replicate, split_replicates
from models.streams import ChainNoise, Stream


@dataclass
class Cost:
    """What was spent: energy gradients of one image, and steps of one image pulled back through."""

    image_steps: int = 0
    backward_steps: int = 0

    def add(self, other: "Cost") -> None:
        """Count what was spent elsewhere."""
        self.image_steps += other.image_steps
        self.backward_steps += other.backward_steps


@dataclass
class Defence:
    """A purifier, a classifier, and how many replicates one served answer averages.

    Args:
        purifier: works on [-1, 1] images.
        classify: purified [-1, 1] images [N, C, H, W] to logits [N, K].
        served_replicates: replicates whose mean logits are one answer of the service.
        frozen: replicate r always draws the same noise, whatever the question: a deterministic defence.
        device: where the networks are.
    """

    purifier: Purifier
    classify: Callable[[Tensor], Tensor]
    served_replicates: int = 1
    frozen: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    cost: Cost = field(default_factory=Cost)

    @classmethod
    def of(cls, classifier: PurifiedClassifier, preset: Preset | None = None, smoothing: float = 0.01) -> "Defence":
        """The defence that a bundle holds, under one of its presets (default: its own)."""
        preset = preset or classifier.preset
        purifier = LangevinPurifier(classifier, preset, smoothing)
        device = next(itertools.chain(classifier.parameters(), classifier.buffers())).device
        return cls(purifier, classifier.classify, preset.replicates, device=device)

    def bare(self) -> "Defence":
        """The classifier alone."""
        return Defence(NoPurifier(), self.classify, frozen=True, device=self.device)

    def with_fixed_randomness(self) -> "Defence":
        """The same defence with the noise of every replicate frozen."""
        return Defence(self.purifier, self.classify, self.served_replicates, True, self.device, self.cost)

    @property
    def deterministic(self) -> bool:
        """Whether asking twice gives the same answer."""
        return self.frozen or self.purifier.num_steps == 0

    @torch.no_grad()
    def replicate_logits(self, images: Tensor, streams: Sequence[Stream], first: int, count: int) -> Tensor:
        """Logits [count, B, K] of replicates first .. first + count - 1 of each image [B, C, H, W] in [0, 1].

        Replicate r of an image depends on its stream and on r alone.
        """
        order = [(row, r) for r in range(first, first + count) for row in range(len(images))]
        rows = [(row, self._stream(streams[row], r)) for row, r in order]
        logits = []
        for start in range(0, len(rows), CHAINS_PER_BATCH):
            batch = rows[start : start + CHAINS_PER_BATCH]
            chains = _pad(from_unit(images[[image for image, _ in batch]]))
            self.cost.image_steps += len(batch) * self.purifier.num_steps
            purified = self.purifier.run(chains, ChainNoise([stream for _, stream in batch]))
            logits.append(self.classify(purified)[: len(batch)])
        return split_replicates(_finite(torch.cat(logits)), count)

    @torch.no_grad()
    def purified(self, x: Tensor, stream: Stream) -> Tensor:
        """One purified replicate of each image [N, C, H, W] in [-1, 1], for people to look at."""
        batches = x.split(CHAINS_PER_BATCH)
        noise = [ChainNoise([stream.child(n, row) for row in range(len(batch))]) for n, batch in enumerate(batches)]
        return torch.cat([self.purifier.run(batch, each) for batch, each in zip(batches, noise, strict=True)])

    @torch.no_grad()
    def predict(self, noised: Tensor, streams: Sequence[Stream]) -> Tensor:
        """Labels [N] of one replicate each, of images [N, C, H, W] in [0, 1] plus noise that may leave it."""
        self.cost.image_steps += len(noised) * self.purifier.num_steps
        purified = self.purifier.run(_pad(from_unit_unbounded(noised)), ChainNoise(streams))
        return _finite(self.classify(purified)[: len(noised)]).argmax(1)

    def logits(self, images: Tensor, streams: Sequence[Stream], replicates: int, mode: GradMode) -> Tensor:
        """Mean logits [B, K] over replicates, differentiable in the images in the given mode."""
        logits = self.classify(self._purify(images, streams, replicates, mode))[: replicates * len(images)]
        return split_replicates(_finite(logits), replicates).mean(0)

    def purify(self, images: Tensor, streams: Sequence[Stream], mode: GradMode) -> Tensor:
        """One purified replicate [B, C, H, W] of each image, in [0, 1] units, differentiable in the given mode.

        As chains are, it is not clamped to [0, 1].
        """
        return to_unit(self._purify(images, streams, 1, mode)[: len(images)])

    def _purify(self, images: Tensor, streams: Sequence[Stream], replicates: int, mode: GradMode) -> Tensor:
        """The replicates' ends in [-1, 1], with the padding's behind them."""
        chains = replicate(from_unit(images), replicates)
        noise = ChainNoise([self._stream(stream, r) for r in range(replicates) for stream in streams])
        self.cost.image_steps += len(chains) * self.purifier.num_steps
        backward_steps = len(chains) * mode.backward_steps(self.purifier.num_steps)

        def spend() -> None:
            self.cost.backward_steps += backward_steps

        purified: Tensor = _Purify.apply(_pad(chains), self.purifier, noise, mode, spend)  # type: ignore[no-untyped-call]
        return purified

    def attack_gradient(
        self,
        images: Tensor,
        labels: Tensor,
        streams: Sequence[Stream],
        replicates: int,
        mode: GradMode,
        loss: LossName,
        targets: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean logits [B, K], losses [B] of the mean logits, and the losses' gradients [B, C, H, W], detached.

        `targets` are those of `attack_loss`.
        """
        with torch.enable_grad():
            images = images.detach().requires_grad_(True)
            logits = self.logits(images, streams, replicates, mode)
            losses = attack_loss(loss, logits, labels, targets)
            (gradient,) = torch.autograd.grad(losses.sum(), images)
        return logits.detach(), losses.detach(), gradient

    def as_module(self, grad: str = "bpda", replicates: int | None = None, seed: int = 0) -> "DefenceModule":
        """A torch module, [0, 1] images to mean logits, that torchattacks and other libraries can attack unchanged."""
        if replicates is not None and replicates < 1:
            raise QuestionError(f"expected at least 1 replicate, got {replicates}")
        mode = GradMode.model_validate(grad)
        return DefenceModule(self, mode, replicates or self.served_replicates, Stream((seed, "module")))

    def _stream(self, stream: Stream, r: int) -> Stream:
        return Stream(("frozen", r)) if self.frozen else stream.child("replicate", r)


class DefenceModule(nn.Module):
    """A Defence as a module; every call draws fresh noise from a stream that counts the calls."""

    def __init__(self, defence: Defence, mode: GradMode, replicates: int, stream: Stream) -> None:
        super().__init__()
        self.defence, self.mode, self.replicates, self.stream, self.calls = defence, mode, replicates, stream, 0
        # Libraries find the device through a parameter.
        self.register_parameter("anchor", nn.Parameter(torch.zeros((), device=defence.device), requires_grad=False))
        self.eval()  # nothing in it behaves otherwise in training, which libraries would warn of

    def forward(self, images: Tensor) -> Tensor:
        """Mean logits [B, K]; raises ValueError for images outside [0, 1]."""
        check_unit_range(images)
        self.calls += 1
        group = max(1, CHAINS_PER_BATCH // self.replicates)
        logits = []
        for start, batch in enumerate(images.split(group)):
            streams = [self.stream.child(self.calls, start * group + row) for row in range(len(batch))]
            logits.append(self.defence.logits(batch, streams, self.replicates, self.mode))
        return torch.cat(logits)


class _Purify(torch.autograd.Function):
    """purify with the gradient that the mode names."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, purifier: Purifier, noise: ChainNoise, mode: GradMode, spend: Callable[[], None]
    ) -> Tensor:
        purified, pull_back = purifier.record(x.detach(), noise, mode)
        ctx.pull_back, ctx.spend = pull_back, spend
        return purified.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        pull_back: PullBack = ctx.pull_back
        ctx.spend()
        return pull_back(gradients[0]), None, None, None, None


def _finite(logits: Tensor) -> Tensor:
    if not bool(logits.isfinite().all()):
        raise DefenceError("the defence answered with logits that are not finite; no verdict can be had from them")
    return logits


def _pad(x: Tensor) -> Tensor:
    """x [N, ...] with zero rows up to a multiple of BATCH_MULTIPLE."""
    missing = -len(x) % BATCH_MULTIPLE
    return torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x
