"""Evaluates a defence: `Evaluator(defence, threat=Linf(8 / 255), preset="quick").run(images, labels)`."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from attacks_eval.artefacts import write_artefacts
from attacks_eval.attackers import as_defence
from attacks_eval.certification import certify_images
from attacks_eval.checks import measure_checks
from attacks_eval.curves import measure_curves
from attacks_eval.defence import Defence
from attacks_eval.detection_phase import measure_detection
from attacks_eval.errors import QuestionError
from attacks_eval.evaluation import Evaluation
from attacks_eval.findings import Findings, assemble
from attacks_eval.foreign import ForeignAttack
from attacks_eval.judge import Verdict
from attacks_eval.ledger import Ledger
from attacks_eval.phases import Row, foreign_name, resolve, run_foreign, run_planned
from attacks_eval.plans import Plan, PlannedAttack, load_plan, transfer_from
from attacks_eval.probe import GradientProbe, probe_gradients
from attacks_eval.purifiers import LangevinPurifier
from attacks_eval.run import Run
from attacks_eval.shares import Share, share
from attacks_eval.slots import Task
from attacks_eval.summary import WorstCase, counting, worst_cases
from attacks_eval.threat_model import Linf, ThreatModel, check_unit_range
from attacks_eval.workers import Workers
from models.console import console
from models.files import commit, sole_writer
from models.purifier import PurifiedClassifier
from models.streams import Stream

PROBED_IMAGES = 4


@dataclass(frozen=True)
class About:
    """What is evaluated, for the report; a defence without a bundle has no digests. `second` is a bundle's, too."""

    bundle_name: str = "unnamed"
    bundle: str = ""
    weights: str = ""
    preset_name: str = ""
    data: str = ""
    first: int = 0
    class_names: tuple[str, ...] = ()
    command: str = ""
    second: str = ""


@dataclass
class Evaluator:
    """Attacks, judges, and sums up.

    Args:
        defence: what is attacked; a PurifiedClassifier is attacked under its own preset.
        threat: what the attacker may do.
        preset: a plan, or the name of one: smoke, quick, compact, standard, paper.
        folder: where the ledger, `result.json` and `adv.npz` go; None keeps nothing.
        resume: go on with the evaluation that `folder` holds.
        second: another defence, whose bare classifier a transfer attack is also made on.
        added: attacks besides the plan's, ours or other libraries': before it, or of ours those on survivors after it.
        workers: processes to search in, on a CPU; they change no verdict.
        ray: the address of a Ray cluster to search on instead.
    """

    defence: Defence | PurifiedClassifier
    threat: ThreatModel = field(default_factory=lambda: Linf(8 / 255))
    preset: str | Plan = "quick"
    folder: Path | None = None
    resume: bool = False
    seed: int = 0
    second: Defence | None = None
    added: Sequence[PlannedAttack | ForeignAttack] = ()
    about: About = About()
    workers: int = 1
    ray: str | None = None

    def run(self, images: Tensor, labels: Tensor) -> Evaluation:
        """Evaluate on images [N, C, H, W] in [0, 1] with labels [N].

        Raises:
            ValueError: images outside [0, 1].
            QuestionError: labels that do not belong to the images.
            GradientError: a purifier that drops its gradients.
            ResultError: `folder` holds another evaluation.
        """
        if len(images) == 0 or labels.shape != (len(images),):
            raise QuestionError(f"expected one label an image, got {len(images)} images and {len(labels)} labels")
        check_unit_range(images)
        if self.resume and not self.about.weights:
            raise QuestionError(
                "only a defence that About.weights identifies can be resumed: the folder may hold another"
            )
        if self.folder is None:
            with TemporaryDirectory() as folder:
                return self._run(images, labels, Path(folder))
        with sole_writer(self.folder):
            return self._run(images, labels, self.folder)

    def _run(self, images: Tensor, labels: Tensor, folder: Path) -> Evaluation:
        defence = as_defence(self.defence)
        plan = load_plan(self.preset) if isinstance(self.preset, str) else self.preset
        tasks = tuple(
            Task(self.about.first + row, image.to(defence.device), int(label))
            for row, (image, label) in enumerate(zip(images, labels, strict=True))
        )
        ledger = Ledger(folder, self._question(plan, defence, images, labels), self.resume, defence.cost)
        ledger.begin_session(commit())
        with Workers(self.workers, defence.device, self.ray) as workers:
            run = Run(defence, self.threat, plan, tasks, ledger, Stream((self.seed,)), workers)
            found = self._find(run)
        about = {**self.about.__dict__, "seed": self.seed}
        evaluation = assemble(run, found, about)
        write_artefacts(run, folder, evaluation, found.worst)
        return evaluation

    def _question(self, plan: Plan, defence: Defence, images: Tensor, labels: Tensor) -> dict[str, Any]:
        """Everything that the ledger's entries depend on; attacks may be added to a finished evaluation."""
        digest = hashlib.sha256(images.cpu().contiguous().numpy().tobytes() + labels.cpu().numpy().tobytes())
        purifier = defence.purifier
        chain = purifier if isinstance(purifier, LangevinPurifier) else None
        return {
            "weights": self.about.weights,
            "second": self.about.second,
            "preset": chain.preset.model_dump() if chain else None,
            "smoothing": chain.smoothing if chain else None,
            "replicates": defence.served_replicates,
            "frozen": defence.frozen,
            "threat": self.threat.model_dump(),
            "plan": plan.model_dump(mode="json"),
            "seed": self.seed,
            "first": self.about.first,
            "images": digest.hexdigest(),
        }

    def _find(self, run: Run) -> Findings:
        """Every phase in order; each reads from the ledger what it holds already."""
        plan, probe = run.plan, _probed(run)
        clean = run.judged("clean", run.tasks, "clean verdicts")
        right = {number for number, verdict in clean.items() if verdict.right}
        rows = self._attack(run, probe, clean)
        worst = worst_cases(run, counting(rows))
        rounded = run.judged("rounded", _rounded(run, worst), "verdicts after rounding")
        return Findings(
            probe=probe,
            clean=clean,
            rows=rows,
            worst=worst,
            rounded=rounded,
            bare=_bare(run, rows),
            checks=measure_checks(run, probe, right),
            detection=measure_detection(run, rows, worst, plan.detection_images),
            curves=measure_curves(run, plan.curves, probe.exact, right) if plan.curves else [],
            certification=certify_images(run, plan.certify) if plan.certify else None,
        )

    def _attack(self, run: Run, probe: GradientProbe, clean: Mapping[int, Verdict]) -> list[Row]:
        """Every attack in order, on what it is meant for."""
        extra = [each for each in self.added if isinstance(each, PlannedAttack)]
        extra += [transfer_from("second")] if self.second else []
        before = [each for each in extra if each.on == "all"]
        after = [each for each in extra if each.on == "survivors"]
        planned = [resolve(each, probe.exact, run.defence) for each in (*before, *run.plan.attacks, *after)]
        right = [task for task in run.tasks if clean[task.number].right]
        foreign = [each for each in self.added if isinstance(each, ForeignAttack)]
        _refuse_duplicates(
            [*(each.name for each in planned), *(foreign_name(run, each, probe.exact) for each in foreign)]
        )
        _announce(planned, probe, run, len(right))
        rows = [run_foreign(run, each, right, probe.exact, self.seed) for each in foreign]
        for each in planned:
            broken = set[int]().union(*(row.broken for row in counting(rows)))
            on = [task for task in right if each.on == "all" or task.number not in broken]
            rows.append(run_planned(run, each, on, self.second))
            console.print(f"{each.name}: broke {len(rows[-1].broken)} of {len(on)}")
        return rows


def _probed(run: Run) -> GradientProbe:
    if (known := run.ledger.get("gradients")) is None:
        tasks = run.tasks[:PROBED_IMAGES]
        images = torch.stack([task.image for task in tasks])
        labels = torch.tensor([task.label for task in tasks], device=images.device)
        known = {"probe": probe_gradients(run.defence, images, labels, run.stream.child("gradients")).model_dump()}
        run.ledger.add(("gradients",), known)
    return GradientProbe.model_validate(known["probe"])


def _refuse_duplicates(names: Sequence[str]) -> None:
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise QuestionError(f"attacks must differ: {', '.join(doubled)} would be run twice")


def _announce(planned: Sequence[PlannedAttack], probe: GradientProbe, run: Run, images: int) -> None:
    """Print the cost before anything dear starts: an upper bound, because broken images leave."""
    num_steps = run.defence.purifier.num_steps
    forward = backward = 0.0
    for each in planned:
        if each.source is None:
            chains = float(images * each.attack.queries * each.attack.eot)
            forward += chains * num_steps
            backward += chains * (each.attack.grad.backward_steps(num_steps) if each.attack.grad else 0)
    # A pulled-back step costs about four energy gradients on the CPUs where it was measured.
    minutes = (forward + 4 * backward) / probe.steps_per_second / 60 / run.workers.count
    console.print(
        f"{len(planned)} attacks on {images} images: at most {forward / 1e6:.1f} million Langevin steps and "
        f"{backward / 1e6:.1f} million pulled back, {minutes:.0f} minutes at the probe's speed; broken images leave "
        "early, and verdicts, checks, curves, certificates and other libraries' attacks come on top"
    )


def _rounded(run: Run, worst: Mapping[int, WorstCase]) -> list[Task]:
    tasks = []
    for task in run.tasks:
        if task.number in worst:
            levels = run.threat.round_inside(worst[task.number].image, task.image)
            tasks.append(Task(task.number, levels.float() / 255.0, task.label, worst[task.number].row.name))
    return tasks


@torch.no_grad()
def _bare(run: Run, rows: Sequence[Row]) -> dict[str, Share]:
    """The classifier alone: on clean images, and on those that were made on it."""
    bare, total = run.defence.bare(), len(run.tasks)

    def right(tasks: Sequence[Task]) -> int:
        streams = [run.stream] * len(tasks)
        logits = bare.replicate_logits(torch.stack([task.image for task in tasks]), streams, 0, 1)[0]
        return int((logits.argmax(1).cpu() == torch.tensor([task.label for task in tasks])).sum())

    shares = {"clean": share(right(run.tasks), total)}
    for row in rows:
        if row.name == "transfer-bare" and row.finished:
            made = [Task(t.number, run.kept(row.key, t.number), t.label) for t in run.tasks if t.number in row.finished]
            shares["attacked"] = share(right(made), len(made))
    return shares
