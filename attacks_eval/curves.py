"""Accuracy against the budget, the attacker's averaging and the chain's length, on the first images of the run.

The curve's attack is one attack, not the worst case over all; it is the same along a curve.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from attacks_eval.defence import Defence
from attacks_eval.evaluation import Curve, CurvePoint
from attacks_eval.gradients import GradMode, stand_in
from attacks_eval.pgd import PGD
from attacks_eval.plans import CurvePlan, transfer_from
from attacks_eval.protocol import craft
from attacks_eval.purifiers import LangevinPurifier
from attacks_eval.run import Run
from attacks_eval.shares import share
from attacks_eval.slots import Task
from attacks_eval.threat_model import ThreatModel


def measure_curves(run: Run, curves: CurvePlan, exact: GradMode, right: set[int]) -> list[Curve]:
    """Every curve of the plan that this defence has; `right` are the images that are right when clean."""
    attack = curves.attack.model_copy(update={"grad": stand_in(curves.attack.grad, exact)})
    tasks = run.tasks[: curves.images]
    attackable = [task for task in tasks if task.number in right]
    found = []
    if curves.budgets:
        found.append(_budget_curve(run, attack, curves.budgets, tasks, attackable))
    if curves.eot and not run.defence.deterministic:
        found.append(_eot_curve(run, attack, curves.eot, tasks, attackable))
    purifier = run.defence.purifier
    if curves.langevin_steps and isinstance(purifier, LangevinPurifier):
        found.append(_length_curve(run, purifier, attack, curves.langevin_steps, tasks))
    return found


def _budget_curve(
    run: Run, attack: PGD, budgets: Sequence[float], tasks: Sequence[Task], attackable: Sequence[Task]
) -> Curve:
    """`budgets` are multiples of the threat's.

    An image broken within a small budget is broken within a larger one: each budget attacks what is left.
    """
    left, points = list(attackable), [CurvePoint(x=0, accuracies={"robust": share(len(attackable), len(tasks))})]
    for factor in sorted(budgets):
        budget = factor * run.threat.budget
        threat = ThreatModel(norm=run.threat.norm, budget=budget)
        found = run.searched(("curve-budget", str(budget)), run.defence, attack, left, threat, f"budget {budget:g}")
        left = [task for task in left if not found[task.number].broken]
        points.append(CurvePoint(x=budget, accuracies={"robust": share(len(left), len(tasks))}))
    return Curve(
        name="budget",
        title="Accuracy against the attacker's budget",
        x_label=f"budget ({'L-infinity' if run.threat.norm == 'linf' else 'L2'}, 1/255 units)",
        note=_note(attack),
        images=len(tasks),
        points=points,
    )


def _eot_curve(run: Run, attack: PGD, eot: Sequence[int], tasks: Sequence[Task], attackable: Sequence[Task]) -> Curve:
    points = []
    for replicates in sorted(eot):
        averaging = attack.model_copy(update={"eot": replicates})
        title = f"EOT {replicates}"
        found = run.searched(("curve-eot", replicates), run.defence, averaging, attackable, run.threat, title)
        robust = sum(not each.broken for each in found.values())
        points.append(CurvePoint(x=replicates, accuracies={"robust": share(robust, len(tasks))}))
    return Curve(
        name="eot",
        title="Accuracy against the replicates that the attacker averages",
        x_label="EOT replicates in each gradient",
        note=_note(attack),
        images=len(tasks),
        points=points,
    )


def _length_curve(
    run: Run, purifier: LangevinPurifier, attack: PGD, lengths: Sequence[int], tasks: Sequence[Task]
) -> Curve:
    """Other chain lengths than the preset's: each is another defence, attacked anew."""
    transfer = transfer_from("bare")
    stream = run.stream.child("curve-langevin", "transfer")
    made = craft(run.defence.bare(), transfer.attack, tasks, run.threat, stream)
    crafted = [Task(task.number, image, task.label) for task, image in made]
    points = [_length_point(run, purifier, attack, length, tasks, crafted) for length in sorted(lengths)]
    return Curve(
        name="langevin_steps",
        title="Accuracy and latency against the purifier's Langevin steps",
        x_label="Langevin steps",
        note=f"{_note(attack)}; transfer is {transfer.title}",
        images=len(tasks),
        points=points,
    )


def _length_point(
    run: Run, purifier: LangevinPurifier, attack: PGD, length: int, tasks: Sequence[Task], crafted: Sequence[Task]
) -> CurvePoint:
    preset = purifier.preset.model_copy(update={"num_steps": length})
    defence = replace(run.defence, purifier=LangevinPurifier(purifier.defence, preset, purifier.smoothing))
    at_length = replace(run, defence=defence)
    section = f"curve-langevin {length}"
    clean = at_length.judged(f"{section} clean", tasks, f"{length} steps: clean")
    transfer = at_length.judged(f"{section} transfer", crafted, f"{length} steps: transfer")
    attackable = [task for task in tasks if clean[task.number].right]
    title = f"{length} steps: {attack.grad}"
    found = at_length.searched(("curve-langevin", length), defence, attack, attackable, run.threat, title)
    counts = {
        "clean": sum(verdict.right for verdict in clean.values()),
        "transfer": sum(clean[number].right and verdict.right for number, verdict in transfer.items()),
        "robust": sum(not each.broken for each in found.values()),
    }
    return CurvePoint(
        x=length,
        accuracies={name: share(count, len(tasks)) for name, count in counts.items()},
        seconds_per_image=_latency(run, section, defence, tasks[0].image),
    )


def _latency(run: Run, section: str, defence: Defence, image: Tensor) -> float:
    """Median seconds of one served answer to one image, from the ledger when it was measured before."""
    if (known := run.ledger.get(section, "latency")) is None:
        seconds = []
        for turn in range(4):
            start = time.perf_counter()
            defence.replicate_logits(image[None], [run.stream.child(section, turn)], 0, defence.served_replicates)
            if image.is_cuda:
                torch.cuda.synchronize(image.device)
            seconds.append(time.perf_counter() - start)
        known = {"seconds": round(statistics.median(seconds[1:]), 5)}
        run.ledger.add((section, "latency"), known)
    return float(known["seconds"])


def _note(attack: PGD) -> str:
    return f"PGD-{attack.steps}, {attack.loss}, EOT {attack.eot}, gradient {attack.grad}"
