"""Measures detection on the images of a run: clean ones against those that each kind of attacker made."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from attacks_eval.detection import detection_rows, trace
from attacks_eval.evaluation import DetectionRow
from attacks_eval.ledger import Key
from attacks_eval.phases import Row
from attacks_eval.purifiers import LangevinPurifier
from attacks_eval.run import Run, batches
from attacks_eval.slots import Task
from attacks_eval.summary import WorstCase

REPLICATES = 8


def measure_detection(run: Run, rows: Sequence[Row], worst: Mapping[int, WorstCase], images: int) -> list[DetectionRow]:
    """Rows for transfer attackers, who do not know the purifier, and for each image's worst case; the latter's maker
    knows the purifier when every one of those images was made by a white-box attack.

    Neither optimises against the detector.
    """
    tasks = run.tasks[:images]
    if not tasks or not isinstance(run.defence.purifier, LangevinPurifier):
        return []
    clean = _traces(run, tasks)
    made = [
        Task(t.number, worst[t.number].image, t.label, worst[t.number].row.name) for t in tasks if t.number in worst
    ]
    found: list[DetectionRow] = []
    if made:
        knows = all(worst[task.number].row.knowledge == "white box" for task in made)
        found += detection_rows(clean=clean, attacked=_traces(run, made), attack="worst case", attacker_knows=knows)
    for row in rows:
        if row.knowledge == "transfer":
            crafted = [
                Task(t.number, run.kept(row.key, t.number), t.label, row.name)
                for t in tasks
                if t.number in row.finished
            ]
            if crafted:
                traces = _traces(run, crafted)
                found += detection_rows(clean=clean, attacked=traces, attack=row.name, attacker_knows=False)
    return found


def _traces(run: Run, tasks: Sequence[Task]) -> dict[str, Tensor]:
    """Each quantity over the tasks' images, in their order."""

    def key(task: Task) -> Key:
        return ("trace", task.made_by, task.number)

    missing = [task for task in tasks if run.ledger.get(*key(task)) is None]
    for batch in batches(missing, "detection"):
        streams = [run.stream.child(*key(task)) for task in batch]
        values = trace(run.defence, torch.stack([task.image for task in batch]), streams, REPLICATES)
        for row, task in enumerate(batch):
            own = {name: float(each[row]) for name, each in values.items()}
            run.ledger.add(key(task), {"values": own})
    found = [entry["values"] for task in tasks if (entry := run.ledger.get(*key(task)))]
    return {name: torch.tensor([values[name] for values in found]) for name in found[0]}
