"""IGEBM's conditional energy as a classifier under attack (arXiv 1903.08689), by the whole adversary.

FOLDER/
  conditional   the training run
  evaluation    the adversary's ledger, result and report
  spent.json    CPU seconds of all that came after the training, resumed runs included
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from attacks_eval.defence import Defence
from attacks_eval.energy_classifier import energy_defence
from attacks_eval.evaluation import Evaluation
from attacks_eval.evaluator import About, Evaluator
from attacks_eval.plans import Plan, load_plan
from attacks_eval.report.write import write_report
from attacks_eval.shares import Share, share
from attacks_eval.threat_model import Linf
from models.config import Frozen
from models.console import console, progress_bar
from models.data import Split, load_dataset
from models.errors import NetworkError
from models.files import replace_file
from models.kept import kept_record
from models.pixels import from_uint8
from models.reproduce import igebm_generation
from models.reproduce.result import Finding, Number
from models.streams import Stream
from models.tasks.energy_classifier import EnergyClassifier, Refinement, fit_bias
from models.training.frozen_parts import weights_digest
from models.training.program import train_recipe
from models.training.recipe import EnergyRecipe, load_recipe
from models.training.trained import TrainedEnergy, load_trained_energy

PICTURE, SPENT = "held.png", "spent.json"
PAPER_CLEAN = 49.0
BATCH = 50
SPLITS: tuple[Split, Split] = ("train", "test")


class Spent(Frozen):
    """CPU seconds."""

    cpu_seconds: float


class Size(Frozen):
    """How much of it two CPU cores can carry.

    Args:
        fitted: training images that the classes' bias is fitted to.
        clean: test images whose labels are asked for without an attack; the first `attacked` of them are attacked.
        steps, budget: of the refinement (IGEBM: 10, within 8/255).
        replicates: refinements that one answer averages (IGEBM: 1).
    """

    recipe: str = "igebm_cifar10_conditional_light"
    overrides: tuple[str, ...] = igebm_generation.FULL.overrides
    fitted: int = 1000
    clean: int = 500
    attacked: int = 24
    steps: int = 10
    budget: float = 8.0
    replicates: int = 1
    plan: str = "quick"


FULL = Size()


def remake(folder: Path, device: torch.device, size: Size = FULL) -> Finding:
    """Train, fit the bias, ask for labels, attack; what is there already is kept."""
    recipe = load_recipe(size.recipe, size.overrides)
    assert isinstance(recipe, EnergyRecipe)
    train_recipe(recipe, folder / "conditional", resume=True, amend=False, device=device)
    trained = load_trained_energy(folder / "conditional" / "checkpoint.pt", device)
    with _counted(folder / SPENT):
        clean, found, bias = _measure(trained, folder, size)
    plot_held(clean, found, folder / PICTURE)
    spent = kept_record(folder / SPENT, Spent, "CPU seconds")
    assert spent is not None
    return _finding(size, clean, found, bias, trained.cpu_seconds + spent.cpu_seconds)


@contextmanager
def _counted(path: Path) -> Iterator[None]:
    """Add the CPU seconds within to those that `path` holds, however this ends."""
    start = time.process_time()
    try:
        yield
    finally:
        before = kept_record(path, Spent, "CPU seconds") or Spent(cpu_seconds=0)
        total = before.cpu_seconds + time.process_time() - start
        replace_file(path, Spent(cpu_seconds=total).model_dump_json().encode())


def _measure(trained: TrainedEnergy, folder: Path, size: Size) -> tuple[dict[str, Share], Evaluation, str]:
    """Clean accuracies, the evaluation, and what is to say of the bias."""
    data = trained.recipe.data
    train, test = (load_dataset(data.name, split, data.folder) for split in SPLITS)
    classifier, bias = with_bias(trained, train.images[: size.fitted], train.labels[: size.fitted])
    changed = {"num_steps": size.steps, "box": None, "budget": size.budget}
    config = Refinement.model_validate(trained.sampler.model_dump() | changed)
    defence = energy_defence(classifier, config, size.replicates)
    images, labels = test.images[: size.clean] / 255.0, test.labels[: size.clean]
    clean = {
        "argmin E of the image itself": answered(defence.bare(), images, labels),
        "argmin E after refinement": answered(defence, images, labels),
    }
    plan = load_plan(size.plan).without(["curves"] if load_plan(size.plan).curves else [])
    plan = plan.model_copy(update={"images": size.attacked, "name": f"{plan.name}*", "detection_images": 0})
    found = attack(defence, config, plan, folder / "evaluation", images, labels, test.class_names)
    return clean, found, bias


def with_bias(trained: TrainedEnergy, pixels: Tensor, labels: Tensor) -> tuple[EnergyClassifier, str]:
    """The classifier of an energy, with a bias fitted to training images where one fits, and a sentence about it."""
    bare, device = EnergyClassifier(trained.network, trained.data.shape[0]), trained.parts.training.device
    bare = bare.to(device)
    with torch.no_grad():
        energies = -torch.cat([bare(from_uint8(each).to(device)) for each in pixels.split(BATCH)])
    try:
        bias = fit_bias(energies, labels.to(device))
    except NetworkError as error:
        return bare, f"No bias of the classes: {error}."
    spread = f"{float(bias.min()):.3g} to {float(bias.max()):.3g}"
    fitted = EnergyClassifier(trained.network, trained.data.shape[0], bias)
    return fitted.to(device), f"A bias of the classes, {spread}, was fitted to {len(pixels)} training images."


def answered(defence: Defence, images: Tensor, labels: Tensor) -> Share:
    """How many images [N, C, H, W] in [0, 1] one served answer is right about."""
    right = 0
    with progress_bar("labels", len(images)) as progress:
        for number, batch in enumerate(images.split(BATCH)):
            rows = slice(number * BATCH, number * BATCH + len(batch))
            streams = [Stream(("clean", row)) for row in range(rows.start, rows.stop)]
            logits = defence.replicate_logits(batch.to(defence.device), streams, 0, defence.served_replicates).mean(0)
            right += int((logits.argmax(1).cpu() == labels[rows]).sum())
            progress.advance(progress.task_ids[0], len(batch))
    return share(right, len(images))


def attack(
    defence: Defence,
    config: Refinement,
    plan: Plan,
    folder: Path,
    images: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
) -> Evaluation:
    """The plan on its first images, gone on with where `folder` holds a part of it."""
    assert isinstance(defence.classify, EnergyClassifier)
    identity = f"{weights_digest(defence.classify)} {config.model_dump_json()}"
    about = About(
        bundle_name="IGEBM's conditional energy",
        weights=hashlib.sha256(identity.encode()).hexdigest(),
        preset_name="refinement",
        class_names=tuple(class_names),
    )
    evaluator = Evaluator(
        defence, Linf(8 / 255), plan, folder=folder, resume=(folder / "ledger.jsonl").exists(), about=about
    )
    found = evaluator.run(images[: plan.images], labels[: plan.images])
    write_report(folder)
    console.print(f"{folder}: report.html")
    return found


def plot_held(clean: dict[str, Share], found: Evaluation, path: Path) -> None:
    """What is right without an attack and under each, with Wilson's 95 % intervals, as PNG."""
    # The object interface: pyplot keeps global state and wants a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = {**clean, f"the {found.images} attacked, clean": found.clean.mean_logit}
    rows |= {each.title: each.statistics.mean_logit for each in found.attacks} | {"worst case": found.worst_case}
    figure = Figure(figsize=(8, 0.4 * len(rows) + 1), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for place, each in enumerate(rows.values()):
        axis.barh(place, 100 * each.accuracy, color="tab:blue" if place < len(clean) else "tab:red")
        axis.plot([100 * each.low, 100 * each.high], [place, place], color="black", linewidth=1)
    axis.set_yticks(range(len(rows)), list(rows))
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    axis.set_xlabel("right (%)")
    figure.savefig(path, dpi=120)


def _finding(size: Size, clean: dict[str, Share], found: Evaluation, bias: str, seconds: float) -> Finding:
    numbers = [_number(f"clean, {name}", each, None) for name, each in clean.items()]
    numbers[-1] = numbers[-1].model_copy(update={"paper": PAPER_CLEAN})
    numbers.append(_number(f"the {found.images} attacked, clean", found.clean.mean_logit, None))
    for each in found.attacks:
        quirk = " (the attack of IGEBM's code, which ignores the refinement)" if each.name == "transfer-bare" else ""
        numbers.append(_number(f"held under {each.title}{quirk}", each.statistics.mean_logit, None))
    numbers.append(_number("held under the worst case of all attacks", found.worst_case, None))
    return Finding(
        title="A conditional energy as a classifier, attacked",
        source="IGEBM's text: clean accuracy about 49 % on CIFAR-10; its curves under PGD have no numbers.",
        numbers=tuple(numbers),
        setting=(
            f"{size.recipe} with {'; '.join(size.overrides)}. {size.steps} steps of refinement within "
            f"{size.budget:g}/255 for each class's copy, {size.replicates} a served answer. {bias} {size.clean} clean "
            f"test images, the first {size.attacked} of them attacked by plan {found.plan_name}, L-infinity 8/255."
        ),
        why=(
            "Network, chains and updates are a small fraction of the paper's, and few images are attacked. The paper's "
            "attack differentiates the energy alone; ours also see the refinement, where its gradients are worth it: "
            f"{found.gradient_note}"
        ),
        pictures=(PICTURE,),
        cpu_hours=round(seconds / 3600, 3),
        details={
            "size": size.model_dump(mode="json"),
            "clean": {name: each.model_dump() for name, each in clean.items()},
            "attacks": [each.model_dump(mode="json") for each in found.attacks],
            "indicators": [each.model_dump(mode="json") for each in found.indicators],
        },
    )


def _number(what: str, found: Share, paper: float | None) -> Number:
    return Number(
        what=what,
        paper=paper,
        ours=round(100 * found.accuracy, 1),
        ours_spread=round(50 * (found.high - found.low), 1),
        spread="half of Wilson's 95 % interval",
        unit="%",
    )
