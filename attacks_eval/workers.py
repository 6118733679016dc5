"""Searches spread over a pool: processes of this machine, or a Ray cluster.

Small networks leave most cores of a machine idle between their layers; independent searches do not. Every search draws
from its own named stream, so the number of workers changes no verdict.
"""

import pickle
from collections.abc import Sequence
from math import ceil
from types import TracebackType

import torch

from attacks_eval.attack import Attack
from attacks_eval.defence import Defence
from attacks_eval.errors import QuestionError
from attacks_eval.judge import JudgeConfig
from attacks_eval.pools import Pool, ProcessPool, RayPool
from attacks_eval.protocol import Advance, Record, run_attack
from attacks_eval.slots import Task
from attacks_eval.threat_model import ThreatModel
from models.streams import Stream

# Groups of tasks for each worker: several, so that none waits long for the last; each large enough to refill places.
GROUPS = 4


class Workers:
    """Runs attacks; a context manager. With one worker and no cluster, attacks run in this process.

    Args:
        count: processes of this machine.
        ray: the address of a Ray cluster, which has as many workers as CPUs, or GPUs for a defence on one.

    Raises:
        QuestionError: more than one process for a defence on a GPU, which one fills, or a cluster beside them.
        ConfigError: no cluster answers there.
    """

    def __init__(self, count: int, device: torch.device, ray: str | None = None) -> None:
        if count > 1 and ray is not None:
            raise QuestionError(f"{count} workers are processes of this machine; a Ray cluster has its own")
        if count > 1 and device.type != "cpu":
            raise QuestionError(f"{count} workers share a CPU; on {device} use 1")
        self.pool: Pool | None = None
        if ray is not None:
            self.pool = RayPool(ray, device)
        elif count > 1:
            self.pool = ProcessPool(count)
        self.count = self.pool.count if self.pool else 1

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.pool is not None:
            self.pool.close(wait=error is None)

    def run_attack(
        self,
        defence: Defence,
        attack: Attack,
        tasks: Sequence[Task],
        threat: ThreatModel,
        stream: Stream,
        judging: JudgeConfig,
        record: Record,
        advance: Advance,
    ) -> None:
        """`protocol.run_attack`, on every worker; outcomes are recorded as searches end."""
        if self.pool is None:
            return run_attack(defence, attack, tasks, threat, stream, judging, record, advance)
        shared = pickle.dumps((defence, attack, threat, stream, judging))
        size = ceil(len(tasks) / (GROUPS * self.pool.count))
        groups = [pickle.dumps(tasks[start : start + size]) for start in range(0, len(tasks), size)]
        waiting = {task.number for task in tasks}
        for found in self.pool.outcomes(shared, groups):
            task, outcome, image, cost = pickle.loads(found)
            if task.number in waiting:  # a group that was run again tells of its first searches twice
                waiting.remove(task.number)
                defence.cost.add(cost)
                advance(attack.queries)
                record(task, outcome, image)
            if not waiting:
                break
        return None
