"""Accuracy under one attack that knows the defence: a column for tables that compare many defences.

It is one attack of a few steps, not a worst case: it ranks defences, and the standard plan measures the chosen one.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from attacks_eval.defence import Defence
from attacks_eval.gradients import FULL, stand_in
from attacks_eval.ledger import Ledger
from attacks_eval.pgd import PGD
from attacks_eval.plans import Plan
from attacks_eval.probe import probe_gradients
from attacks_eval.run import Run
from attacks_eval.slots import Task
from attacks_eval.threat_model import ThreatModel
from attacks_eval.workers import Workers
from models.evaluation.accuracy import Accuracy
from models.streams import Stream

ATTACK = PGD(steps=20, eot=8, grad=FULL)
TITLE = f"PGD-{ATTACK.steps}, EOT {ATTACK.eot}"
PROBED_IMAGES = 2


def white_box_accuracy(
    defence: Defence, images: Tensor, labels: Tensor, threat: ThreatModel, seed: int, workers: Workers
) -> tuple[Accuracy, str]:
    """How many of `images` [N, C, H, W] in [0, 1] hold, and the gradient that `ATTACK` took for the exact one."""
    tasks = tuple(Task(row, image, int(label)) for row, (image, label) in enumerate(zip(images, labels, strict=True)))
    stream, probed = Stream((seed,)), slice(PROBED_IMAGES)
    exact = probe_gradients(defence, images[probed], labels[probed], stream.child("gradients")).exact
    attack = ATTACK.model_copy(update={"grad": stand_in(FULL, exact)})
    with TemporaryDirectory() as folder, torch.no_grad():
        ledger = Ledger(Path(folder), {}, False, defence.cost)
        plan = Plan(name="white box", images=len(tasks), attacks=())
        run = Run(defence, threat, plan, tasks, ledger, stream, workers)
        clean = run.judged("clean", tasks, "clean verdicts")
        right = [task for task in tasks if clean[task.number].right]
        outcomes = run.searched(("attack", "white-box"), defence, attack, right, threat, f"PGD-{ATTACK.steps}, {exact}")
    held = sum(not outcome.broken for outcome in outcomes.values())
    return Accuracy(held, len(tasks)), str(exact)
