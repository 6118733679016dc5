"""The evaluation protocol: ours against the way published EBM defences are attacked, on the default bundle.

Same images, same preset, same attack: PGD with BPDA and EOT. The published way is that of EBM Life Cycle (arXiv
2205.12243): every image is attacked to the last step, broken or not; the clean images, and each candidate of an image
not yet broken, are judged on as many replicates as our judge draws at most; chains are eager float32. Our way is what
`python -m attacks_eval run` does, at the bundle's own precision. Both are random, so verdicts may differ on images near
the edge: they are compared image by image.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from attacks_eval.defence import Defence
from attacks_eval.gradients import BPDA
from attacks_eval.judge import JudgeConfig, judge
from attacks_eval.pgd import PGD
from attacks_eval.protocol import run_attack
from attacks_eval.slots import Outcome, Task
from attacks_eval.threat_model import ThreatModel
from models.bundle import load_bundle
from models.config import Frozen
from models.evaluation.sample import take_images
from models.pixels import budget_to_unit, from_unit, to_unit
from models.purifier import Preset, PurifiedClassifier, replicate, split_replicates
from models.streams import Stream


class Setting(Frozen):
    """What both ways do, on test images first .. first + images - 1."""

    bundle: str = "models/zoo/cifar10-midrun"
    preset: str = "balanced"
    first: int = 0
    images: int = 4
    steps: int = 50
    attack_step: float = 2.0
    eot: int = 16
    threat: ThreatModel = ThreatModel()
    judge: JudgeConfig = JudgeConfig()
    seed: int = 0

    @property
    def attack(self) -> PGD:
        """BPDA+EOT PGD from a random start, on the cross-entropy of the mean logits."""
        return PGD(steps=self.steps, attack_step=self.attack_step, eot=self.eot, grad=BPDA, loss="ce")

    @property
    def verify(self) -> int:
        """Replicates of each published verdict."""
        return self.judge.stages[-1]


class Measured(Frozen):
    """What one way cost and found.

    Args:
        image_steps: energy gradients of one image, by what they were for: `clean` verdicts, the attack's `gradients`,
            `verification` of its candidates.
        broken_at: for each image, the question (from 1) whose candidate broke it; 0 for one that is wrong when clean,
            None for a survivor.
    """

    seconds: float
    image_steps: dict[str, int]
    broken_at: tuple[int | None, ...]

    @property
    def total_steps(self) -> int:
        return sum(self.image_steps.values())

    @property
    def rate(self) -> float:
        """Image-steps a second, everything else that the way does included."""
        return self.total_steps / self.seconds

    @property
    def clean(self) -> int:
        """Images that are right when clean."""
        return sum(at != 0 for at in self.broken_at)

    @property
    def robust(self) -> int:
        """Images that survive."""
        return sum(at is None for at in self.broken_at)


@dataclass
class Published:
    """The published way's chains, gradients and verdicts; counts its image-steps."""

    defence: PurifiedClassifier
    preset: Preset
    setting: Setting
    image_steps: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("clean", "gradients", "verification"), 0)
    )

    def purify(self, images: Tensor, what: str) -> Tensor:
        """Float32 chains from images [N, C, H, W] in [0, 1], all in one batch."""
        x = from_unit(images).requires_grad_(True)
        for _ in range(self.preset.num_steps):
            (grad,) = torch.autograd.grad(self.defence.energy(x).sum(), x)
            x.data -= self.preset.drift_rate * grad
            x.data += self.preset.step_size * torch.randn_like(x)
        self.image_steps[what] += len(x) * self.preset.num_steps
        return x.detach()

    @torch.no_grad()
    def right(self, image: Tensor, label: Tensor, what: str) -> bool:
        """Whether the mean logits over all verification replicates are right."""
        with torch.enable_grad():
            purified = self.purify(replicate(image[None], self.setting.verify), what)
        return bool(self.defence.classify(purified).mean(0).argmax() == label)

    def gradient(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Whether each image's mean logits are right [B], and the gradient of their cross-entropy [B, C, H, W]."""
        replicates = self.setting.eot
        purified = self.purify(replicate(images, replicates), "gradients").requires_grad_(True)
        logits = split_replicates(self.defence.classify(purified), replicates).mean(0)
        (grad,) = torch.autograd.grad(functional.cross_entropy(logits, labels, reduction="sum"), purified)
        return logits.argmax(1) == labels, split_replicates(grad, replicates).sum(0)

    def attack(self, images: Tensor, labels: Tensor) -> list[int | None]:
        """When each image broke, as `Measured` has it."""
        setting, step = self.setting, budget_to_unit(self.setting.attack_step)
        pairs = zip(images, labels, strict=True)
        broken_at: list[int | None] = [None if self.right(*pair, "clean") else 0 for pair in pairs]
        x = setting.threat.random_start(images, torch.rand_like(images))
        for question in range(1, setting.steps + 2):
            correct, grad = self.gradient(x, labels)
            for row in (~correct).nonzero().flatten().tolist():
                if broken_at[row] is None and not self.right(x[row], labels[row], "verification"):
                    broken_at[row] = question
            x = setting.threat.project(x + step * grad.sign(), images)
        return broken_at


def published_way(
    defence: PurifiedClassifier, preset: Preset, setting: Setting, images: Tensor, labels: Tensor
) -> Measured:
    """The published way on images [B, C, H, W] in [0, 1], its networks in the default memory layout."""
    eager = copy.deepcopy(defence).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    way = Published(eager, preset, setting)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setting.seed)
        start = time.perf_counter()
        broken_at = way.attack(images, labels)
        seconds = time.perf_counter() - start
    return Measured(seconds=seconds, image_steps=way.image_steps, broken_at=tuple(broken_at))


def our_way(defence: PurifiedClassifier, preset: Preset, setting: Setting, images: Tensor, labels: Tensor) -> Measured:
    """Our protocol on the same images: `judge`, then `run_attack` on those that are right when clean."""
    attacked, stream = Defence.of(defence, preset), Stream((setting.seed, "benchmark"))
    outcomes: dict[int, Outcome] = {}

    def record(task: Task, outcome: Outcome, image: Tensor) -> None:
        outcomes[task.number] = outcome

    start = time.perf_counter()
    streams = [stream.child("clean", row) for row in range(len(images))]
    verdicts = judge(attacked, images, labels, streams, setting.judge)
    clean_steps = attacked.cost.image_steps
    tasks = [Task(row, images[row], int(labels[row])) for row, verdict in enumerate(verdicts) if verdict.right]
    run_attack(attacked, setting.attack, tasks, setting.threat, stream.child("pgd"), setting.judge, record)
    seconds = time.perf_counter() - start
    gradients = sum(outcome.queries for outcome in outcomes.values()) * setting.eot * preset.num_steps
    verification = attacked.cost.image_steps - clean_steps - gradients
    return Measured(
        seconds=seconds,
        image_steps={"clean": clean_steps, "gradients": gradients, "verification": verification},
        broken_at=tuple(_broken_at(outcomes[row]) if row in outcomes else 0 for row in range(len(images))),
    )


def _broken_at(outcome: Outcome) -> int | None:
    """A survivor whose last verdict is wrong though undecided counts as broken, at its last question."""
    return outcome.broken_at or (outcome.queries if outcome.broken else None)


WAYS: dict[str, Callable[[PurifiedClassifier, Preset, Setting, Tensor, Tensor], Measured]] = {
    "published": published_way,
    "ours": our_way,
}


def measure_attacks(setting: Setting | None = None) -> dict[str, Any]:
    """Both ways once, after a warm-up of chains of one step: costs, verdicts, and where the ratio comes from."""
    setting = setting or Setting()
    bundle = load_bundle(Path(setting.bundle), torch.device("cpu"))
    taken = take_images(bundle.manifest, None, None, setting.first, setting.images, torch.device("cpu"))
    images, preset = to_unit(taken.images).clamp(0.0, 1.0), bundle.manifest.preset(setting.preset)
    short = setting.model_copy(update={"steps": 1})
    for run in WAYS.values():
        run(bundle.defence, preset.model_copy(update={"num_steps": 1}), short, images, taken.labels)
    ways = {name: run(bundle.defence, preset, setting, images, taken.labels) for name, run in WAYS.items()}
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "bundle": bundle.digest,
        "defence": preset.model_dump(),
        "setting": setting.model_dump(mode="json"),
        **compare(ways["published"], ways["ours"]),
    }


def compare(published: Measured, ours: Measured) -> dict[str, Any]:
    """Each way's costs and verdicts, and `ratio` (of seconds) = `steps_ratio` (fewer steps) x `rate_ratio` (faster)."""
    pairs = list(zip(published.broken_at, ours.broken_at, strict=True))
    rows = [
        {
            "way": name,
            "seconds": way.seconds,
            "image_steps": way.image_steps,
            "total_steps": way.total_steps,
            "rate": way.rate,
            "clean": way.clean,
            "robust": way.robust,
            "broken": [at is not None for at in way.broken_at],
            "broken_at": list(way.broken_at),
        }
        for name, way in (("published", published), ("ours", ours))
    ]
    return {
        "images": len(pairs),
        "ratio": published.seconds / ours.seconds,
        "steps_ratio": published.total_steps / ours.total_steps,
        "rate_ratio": ours.rate / published.rate,
        "disagreements": sum((a is None) != (b is None) for a, b in pairs),
        "clean_disagreements": sum((a == 0) != (b == 0) for a, b in pairs),
        "rows": rows,
    }
