"""Small runs made only for the indicators."""

from attacks_eval.pgd import PGD
from attacks_eval.probe import GradientProbe
from attacks_eval.run import Run
from attacks_eval.threat_model import ThreatModel
from models.config import Frozen

STEPS = 30
# Half the pixel range, and an L2 length at which any 32-pixel image can become any other, nearly.
UNBOUNDED = {"linf": 128.0, "l2": 255.0 * 20}


class Checks(Frozen):
    """`survivors` of `attacked` images stood an attack of `budget`, in 1/255 units, that nothing should stand."""

    attacked: int
    survivors: int
    budget: float


def measure_checks(run: Run, probe: GradientProbe, right: set[int]) -> Checks:
    """Attack a few images with a budget that breaks every classifier, through the exact gradient."""
    budget = UNBOUNDED[run.threat.norm]
    tasks = [task for task in run.tasks if task.number in right][: run.plan.check_images]
    attack = PGD(steps=STEPS, loss="margin", grad=probe.exact, eot=4)
    threat = ThreatModel(norm=run.threat.norm, budget=budget)
    found = run.searched(("check", "unbounded"), run.defence, attack, tasks, threat, "check: unbounded budget")
    survivors = sum(not each.broken for each in found.values())
    return Checks(attacked=len(tasks), survivors=survivors, budget=budget)
