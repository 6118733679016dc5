"""The files of a finished evaluation: `result.json` and `adv.npz`, from which anyone can judge again."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attacks_eval.evaluation import Evaluation
from attacks_eval.run import Run
from attacks_eval.summary import WorstCase
from models.files import replace_file
from models.pixels import from_unit, to_unit

RESULT, ADVERSARIAL = "result.json", "adv.npz"


def write_artefacts(run: Run, folder: Path, evaluation: Evaluation, worst: Mapping[int, WorstCase]) -> None:
    """Write both; `purified` in `adv.npz` is one replicate of each adversarial image, unclipped.

    It is left out where the purifier gives something else than an image, such as a copy for each class.
    """
    replace_file(folder / RESULT, (evaluation.model_dump_json(indent=1) + "\n").encode())
    tasks = [task for task in run.tasks if task.number in worst]
    if not tasks:
        return
    clean = torch.stack([task.image for task in tasks])
    adversarial = torch.stack([worst[task.number].image for task in tasks])
    purified = run.defence.purified(from_unit(adversarial), run.stream.child("gallery"))
    shown: dict[str, Any] = {}
    if purified.shape == adversarial.shape:
        shown["purified"] = to_unit(purified).cpu().numpy()
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        number=np.array([task.number for task in tasks]),
        label=np.array([task.label for task in tasks]),
        clean=clean.cpu().numpy(),
        adversarial=adversarial.cpu().numpy(),
        adversarial_uint8=run.threat.round_inside(adversarial, clean).cpu().numpy(),
        **shown,
    )
    replace_file(folder / ADVERSARIAL, buffer.getvalue())
