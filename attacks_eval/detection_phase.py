"""Measures detection on the images of a run: clean ones against those that each kind of attacker made."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from attacks_eval.detection import detection_rows, trace
from attacks_eval.evaluation import DetectionRow
from attacks_eval.phases import Row
from attacks_eval.purifiers import LangevinPurifier
from attacks_eval.run import Run, batches
from attacks_eval.summary import WorstCase

REPLICATES = 8


def measure_detection(run: Run, rows: Sequence[Row], worst: Mapping[int, WorstCase], images: int) -> list[DetectionRow]:
    """Rows for a transfer attacker, who does not know the purifier, and for the worst case, who does.

    Neither optimises against the detector.
    """
    tasks = run.tasks[:images]
    if not tasks or not isinstance(run.defence.purifier, LangevinPurifier):
        return []
    clean = _traces(run, "clean", {task.number: task.image for task in tasks})
    known = {task.number: worst[task.number].image for task in tasks if task.number in worst}
    found: list[DetectionRow] = []
    if known:
        made = _traces(run, "worst", known)
        found += detection_rows(clean=clean, attacked=made, attack="worst case", attacker_knows=True)
    for row in rows:
        if row.knowledge == "transfer":
            crafted = {task.number: run.kept(row.key, task.number) for task in tasks if task.number in row.finished}
            if crafted:
                made = _traces(run, row.name, crafted)
                found += detection_rows(clean=clean, attacked=made, attack=row.name, attacker_knows=False)
    return found


def _traces(run: Run, section: str, images: Mapping[int, Tensor]) -> dict[str, Tensor]:
    """Each quantity over the images, in order of their numbers."""
    missing = [number for number in images if run.ledger.get("trace", section, number) is None]
    for batch in batches(missing, f"detection: {section}"):
        streams = [run.stream.child("trace", section, number) for number in batch]
        values = trace(run.defence, torch.stack([images[number] for number in batch]), streams, REPLICATES)
        for row, number in enumerate(batch):
            own = {name: float(each[row]) for name, each in values.items()}
            run.ledger.add(("trace", section, number), {"values": own})
    entries = [run.ledger.get("trace", section, number) for number in sorted(images)]
    found = [entry["values"] for entry in entries if entry]
    return {name: torch.tensor([values[name] for values in found]) for name in found[0]}
