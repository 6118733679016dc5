"""The attacks of a plan, in order: each resolved for the defence at hand, run or read from the ledger."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from attacks_eval.defence import Defence
from attacks_eval.errors import QuestionError
from attacks_eval.evaluation import Knowledge
from attacks_eval.foreign import ForeignAttack
from attacks_eval.gradients import FULL, GradMode, stand_in
from attacks_eval.ledger import Key
from attacks_eval.plans import PlannedAttack
from attacks_eval.protocol import craft
from attacks_eval.run import Run
from attacks_eval.slots import Outcome, Task


@dataclass(frozen=True)
class Row:
    """One attack as it was run, and what became of each image that it attacked."""

    name: str
    title: str
    knowledge: Knowledge
    configuration: dict[str, Any]
    on: Literal["all", "survivors"]
    fixed_randomness: bool
    queries: int
    finished: dict[int, Outcome]

    @property
    def key(self) -> Key:
        """Where the ledger keeps it."""
        return ("attack", self.name)

    @property
    def broken(self) -> set[int]:
        """Numbers of the images that it broke."""
        return {number for number, each in self.finished.items() if each.broken}


def resolve(planned: PlannedAttack, exact: GradMode, defence: Defence) -> PlannedAttack:
    """The attack with `full` replaced by what is exact for this defence, in its name too.

    An attack on frozen noise averages the very replicates that the frozen defence averages.
    """
    attack = planned.attack
    updates: dict[str, Any] = {"eot": defence.served_replicates} if planned.fixed_randomness else {}
    if attack.grad is not None:
        updates["grad"] = stand_in(attack.grad, exact)
    name, title = planned.name, planned.title
    if attack.grad == FULL:
        name, title = re.sub("^full-", f"{exact.kind}-", name), re.sub("full$", str(exact), title)
    return planned.model_copy(update={"name": name, "title": title, "attack": attack.model_copy(update=updates)})


def run_planned(run: Run, planned: PlannedAttack, tasks: Sequence[Task], second: Defence | None) -> Row:
    """Run one resolved attack on `tasks`."""
    key: Key = ("attack", planned.name)
    attack = planned.attack
    if planned.source:
        source = _source(run, planned, second)

        def make(missing: Sequence[Task]) -> Iterable[tuple[Task, Tensor]]:
            return craft(source, attack, missing, run.threat, run.stream.child(*key))

        finished = run.tried(key, tasks, make, attack.queries)
    else:
        defence = run.defence.with_fixed_randomness() if planned.fixed_randomness else run.defence
        finished = run.searched(key, defence, attack, tasks, run.threat, planned.title)
    return Row(
        name=planned.name,
        title=planned.title,
        knowledge=planned.knowledge,
        configuration=attack.model_dump(mode="json"),
        on=planned.on,
        fixed_randomness=planned.fixed_randomness,
        queries=attack.queries,
        finished=finished,
    )


def foreign_name(run: Run, foreign: ForeignAttack, exact: GradMode) -> str:
    """The attack's specification with every parameter that was given and both of ours."""
    given = [f"{key}={value}" for key, value in foreign.arguments.items()]
    ours = [
        f"grad={stand_in(foreign.grad, exact)}",
        f"replicates={foreign.replicates or run.defence.served_replicates}",
    ]
    return f"{foreign.title},{','.join(given + ours)}"


def run_foreign(run: Run, foreign: ForeignAttack, tasks: Sequence[Task], exact: GradMode, seed: int) -> Row:
    """Run another library's attack on `tasks`; a `full` gradient is replaced as in our own."""
    name = foreign_name(run, foreign, exact)
    foreign = foreign.model_copy(update={"grad": stand_in(foreign.grad, exact)})
    configuration = foreign.model_dump(mode="json")
    knowledge: Knowledge = "white box" if foreign.gradients else "black box"

    def make(missing: Sequence[Task]) -> Iterable[tuple[Task, Tensor]]:
        wanted = {task.number for task in missing}
        return foreign.craft(run.defence, tasks, run.threat, seed, wanted)

    finished = run.tried(("attack", name), tasks, make, 1)
    return Row(name, f"{name}, unchanged", knowledge, configuration, "all", False, 1, finished)


def _source(run: Run, planned: PlannedAttack, second: Defence | None) -> Defence:
    if planned.source == "bare":
        return run.defence.bare()
    if second is None:
        raise QuestionError(f"{planned.name} needs a second bundle (--transfer-from)")
    return second.bare()
