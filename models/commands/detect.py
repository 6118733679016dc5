"""python -m models detect: does an energy know what it has not learned?"""

import argparse
import json
from importlib.util import find_spec
from pathlib import Path

import torch

from models.bundle import load_bundle
from models.config import validate
from models.console import console, positive_int
from models.data import DATASETS, DataSection
from models.device import resolve_device
from models.errors import ConfigError
from models.evaluation.density_model import density_of_checkpoints
from models.evaluation.detecting import REAL, Question, detect_sets, subject_of
from models.evaluation.detection import SCORES
from models.evaluation.detection_run import DetectionResult, Subject
from models.evaluation.detection_sets import MADE
from models.files import commit, replace_file, sole_writer
from models.training.run import load_trained


def detect(options: argparse.Namespace) -> None:
    """How well an energy tells other images from its data: AUROC, AUPR and FPR at 95 % TPR. Run again, it continues."""
    if find_spec("matplotlib") is None:
        raise ConfigError("detect draws figures with matplotlib: install the extra `eval`")
    with sole_writer(options.out):
        _detect(options)


def _detect(options: argparse.Namespace) -> None:
    subject, data = _subject(options, resolve_device(options.device))
    question = Question(data, options.folder, dict(options.against or ()), options.first, options.images, options.seed)
    result = detect_sets(subject, question, options.out)
    source = " + ".join(map(str, options.checkpoint or [options.bundle]))
    origin = {"source": source, "command": options.command, "commit": commit(), "torch": torch.__version__}
    text = json.dumps({**result.model_dump(mode="json"), **origin}, indent=2, allow_nan=False)
    replace_file(options.out / "detection.json", (text + "\n").encode())
    _print(result, options.out)


def detect_arguments(parser: argparse.ArgumentParser) -> None:
    """What `detect` reads, but for the device."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--bundle", type=Path, help="a bundle, whose energy is asked")
    source.add_argument(
        "--checkpoint", type=Path, nargs="+", help="checkpoint.pt of energies that are added, as `chains`"
    )
    parser.add_argument("--data", choices=DATASETS, help="default: what the energy was trained on")
    parser.add_argument("--folder", type=Path, help="a local folder that holds the data's files")
    parser.add_argument(
        "--against",
        type=_set,
        nargs="+",
        metavar="SET",
        help=f"{', '.join(MADE)}, a dataset (its test images), or DATASET=FOLDER for a local copy; default: "
        f"the first six, and {', '.join(REAL)}, those that a source gives",
    )
    parser.add_argument("--first", type=int, default=0, help="number of the first test image (default 0)")
    parser.add_argument("--images", type=positive_int, default=1000, help="of each set (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the sets that are made or drawn (default 0)")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the result and its pictures")


def _set(text: str) -> tuple[str, Path | None]:
    """An argparse type: NAME or DATASET=FOLDER."""
    name, equals, folder = text.partition("=")
    if name not in DATASETS and (name not in MADE or equals):
        known = ", ".join((*MADE, *DATASETS))
        raise argparse.ArgumentTypeError(f"expected one of {known}, or DATASET=FOLDER; got {text!r}")
    return name, Path(folder) if equals else None


def _subject(options: argparse.Namespace, device: torch.device) -> tuple[Subject, str]:
    """The energy, and the dataset that is usual to it."""
    if options.bundle is not None:
        bundle = load_bundle(options.bundle, device)
        return subject_of(bundle, device), options.data or bundle.manifest.dataset
    model = density_of_checkpoints(options.checkpoint, None, device)
    energy, _ = model.target()
    _, recipe = load_trained(options.checkpoint[0], "energy")
    shape = validate(DataSection, recipe["data"], str(options.checkpoint[0])).shape
    return Subject(energy, model.sampler.precision, shape, model.digest, device), options.data or model.data


def _print(result: DetectionResult, folder: Path) -> None:
    """AUROC of each score, FPR of the energy, and the paper's AUROC, a row a set."""
    console.print(
        f"{result.images} test images of {result.data} from number {result.first}; AUROC with 95 % interval, "
        "and FPR at 95 % TPR by typicality"
    )
    console.print(f"{'set':<15}" + "".join(f"{score:<23}" for score in (*SCORES, "FPR")) + "IGEBM")
    for each in result.sets:
        shown = [each.scores[score].auroc for score in SCORES] + [each.scores["typicality"].fpr_at_95]
        paper = f"{result.paper[each.name]:.2f}" if each.name in result.paper else ""
        console.print(f"{each.name:<15}" + "".join(f"{value!s:<23}" for value in shown) + paper)
    for average in result.averages:
        values = "".join(f"{average.auroc[score]:<23.3f}" for score in SCORES)
        paper = "" if average.paper is None else f"{average.paper:.2f} over its {len(result.paper)} sets; here "
        console.print(f"{'mean':<15}{values}{'':<23}{paper}over {', '.join(average.over)}")
    for name, reason in result.not_run.items():
        console.print(f"{name}: not run ({reason}; here --against {name}=FOLDER)")
    if result.paper_note:
        console.print(result.paper_note)
    console.print(f"written to {folder}: detection.json, detection.png, images.png")
