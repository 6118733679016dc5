"""The bundles that ship, in the same table: each from its report on test images."""

from pathlib import Path

import torch

from attacks_eval.artefacts import RESULT
from attacks_eval.defence import Defence
from attacks_eval.errors import ResultError
from attacks_eval.evaluation import Evaluation
from attacks_eval.strength.candidates import Candidate
from attacks_eval.strength.measure import Row, Setting, row_of, seconds_an_answer
from attacks_eval.strength.parts import ZOO
from models.bundle import load_bundle

DATA = "cifar10"


def bundle_rows(reports: Path, device: torch.device) -> list[Row]:
    """A row for each bundle of CIFAR-10 that has a report, which is read, not made.

    Raises:
        ResultError: the report is of other weights or presets than the bundle's.
    """
    rows = []
    for folder in sorted(each for each in ZOO.iterdir() if each.is_dir()):
        path = reports / folder.name / "robustness" / RESULT
        if path.exists() and (found := Evaluation.model_validate_json(path.read_bytes())).data == DATA:
            rows.append(_row(folder, found, path, device))
    return rows


def _row(folder: Path, found: Evaluation, path: Path, device: torch.device) -> Row:
    bundle = load_bundle(folder, device)
    if not bundle.manifest.answers(found.model_dump(mode="json")):
        raise ResultError(f"{path} was measured on another bundle than {folder.name}, {bundle.digest[:16]}")
    certified = found.certification
    candidate = Candidate(
        name=bundle.manifest.name,
        about=f"{bundle.manifest.description} `{found.command}`",
        energy=bundle.manifest.name,
        classifier=bundle.manifest.name,
        chain=bundle.defence.preset,
        sigma=certified.sigma if certified else None,
    )
    setting = Setting(
        images=found.images,
        certified=certified.images if certified else 1,
        seed=found.seed,
        budget=found.threat.budget,
    )
    parameters = sum(each.numel() for each in bundle.defence.parameters())
    return row_of(candidate, setting, found, seconds_an_answer(Defence.of(bundle.defence)), parameters)
