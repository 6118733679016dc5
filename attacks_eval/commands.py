"""The commands around an evaluation: run, report, compare."""

import argparse
from pathlib import Path

import torch

from attacks_eval.added import parse_added
from attacks_eval.artefacts import RESULT
from attacks_eval.defence import Defence
from attacks_eval.errors import QuestionError
from attacks_eval.evaluation import Evaluation
from attacks_eval.evaluator import About, Evaluator
from attacks_eval.plans import PLANS, Plan, load_plan
from attacks_eval.report.compare import write_comparison
from attacks_eval.report.write import write_report
from attacks_eval.threat_model import ThreatModel
from models.bundle import Bundle, load_bundle
from models.commands.reproducing import conclude, result_arguments
from models.config import apply_overrides, validate
from models.console import console, positive_int
from models.data import DATASETS
from models.device import resolve_device
from models.evaluation.sample import take_images
from models.manifest import Manifest
from models.pixels import to_unit
from models.purifier import Preset
from models.reproduce.experiments import run_experiment

BUDGETS = {"linf": 8.0, "l2": 127.5}


def run(options: argparse.Namespace) -> None:
    """Attack a bundle by a plan, and report: worst case first, with intervals."""
    device = resolve_device(options.device)
    bundle = load_bundle(options.bundle, device)
    manifest, plan = bundle.manifest, _plan(options)
    preset_name, preset = _attacked_preset(manifest, options)
    budget = BUDGETS[options.norm] if options.budget is None else options.budget
    threat = validate(ThreatModel, {"norm": options.norm, "budget": budget}, "--budget")
    second = _second(options.transfer_from, manifest, device)
    added = [parse_added(spec) for spec in options.attack or ()]
    taken = take_images(manifest, options.data, options.folder, options.first, plan.images, device)
    out = options.out or Path("runs") / manifest.name / f"{plan.name}-{preset_name}".replace("*", "")
    about = About(
        bundle_name=manifest.name,
        bundle=bundle.digest,
        weights=manifest.weights_digest,
        preset_name=preset_name,
        data=taken.name,
        first=taken.first,
        class_names=manifest.class_names,
        command=options.command,
        second=second.manifest.weights_digest if second else "",
    )
    evaluation = Evaluator(
        Defence.of(bundle.defence, preset),
        threat,
        plan,
        folder=out,
        resume=options.resume,
        seed=options.seed,
        second=Defence.of(second.defence) if second else None,
        added=added,
        about=about,
        workers=options.workers,
        ray=options.ray,
    ).run(to_unit(taken.images).clamp(0.0, 1.0), taken.labels)
    write_report(out)
    _say(evaluation)
    console.print(f"{out}: {RESULT}, report.html, report.md, adv.npz, ledger.jsonl")


def _say(evaluation: Evaluation) -> None:
    """The verdict, and in red what casts doubt on it."""
    worst, clean = evaluation.worst_case, evaluation.clean.mean_logit
    console.print(
        f"worst case {100 * worst.accuracy:.1f} % [{100 * worst.low:.1f}, {100 * worst.high:.1f}], "
        f"clean {100 * clean.accuracy:.1f} %, {evaluation.images} images, {evaluation.threat.name}",
        style="bold",
    )
    for indicator in evaluation.indicators:
        if indicator.fired:
            console.print(f"{indicator.title}: {indicator.finding}. {indicator.advice}", style="red")


def _attacked_preset(manifest: Manifest, options: argparse.Namespace) -> tuple[str, Preset]:
    """The bundle's preset, or a changed chain under a name that says so."""
    name = options.defence or manifest.default_preset
    preset = manifest.preset(name)
    if not options.chain:
        return name, preset
    return f"{name}*", validate(Preset, apply_overrides(preset.model_dump(), options.chain), "--chain")


def report(options: argparse.Namespace) -> None:
    """Write report.html and report.md again from a folder's result.json."""
    write_report(options.folder)
    console.print(f"{options.folder}: report.html, report.md")


def compare(options: argparse.Namespace) -> None:
    """Set two evaluations side by side."""
    console.print(write_comparison(options.a, options.b, options.out))
    console.print(f"written to {options.out}")


def igebm_robustness(options: argparse.Namespace) -> None:
    """Remake IGEBM's conditional energy as a classifier under attack; the same command continues an interrupted one."""
    # Imported here: it trains, and needs the `train` extra.
    from attacks_eval.igebm_robustness import remake

    name = "igebm-robustness"
    folder = options.out or Path("runs/reproduce") / name
    result = run_experiment(name, remake, folder, resolve_device(options.device), f"python -m attacks_eval {name}")
    conclude(result, folder, options.publish)


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add run, report and compare to a parser."""
    p = commands.add_parser("run", help=run.__doc__, description=run.__doc__)
    p.set_defaults(run=run)
    p.add_argument("--bundle", type=Path, required=True)
    p.add_argument("--defence", help="the bundle's preset to attack (default: its default)")
    chain = "change the attacked chain, e.g. num_steps=2000; it is then another defence than the bundle's"
    p.add_argument("--chain", action="append", default=[], metavar="KEY=VALUE", help=chain)
    p.add_argument("--preset", choices=PLANS, default="quick", help="the plan (default quick)")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the plan, e.g. images=100")
    p.add_argument("--skip", action="append", default=[], metavar="NAME", help="an attack, curves or certify")
    p.add_argument("--norm", choices=["linf", "l2"], default="linf")
    p.add_argument("--budget", type=float, help="radius in 1/255 units (default 8; for l2 127.5, a length of 0.5)")
    added = "add an attack: limpid:APGD,grad=truncated:25,eot=8 or torchattacks:NAME,key=value,..."
    p.add_argument("--attack", action="append", metavar="SPEC", help=added)
    p.add_argument("--transfer-from", type=Path, metavar="BUNDLE", help="craft on this bundle's classifier too")
    p.add_argument("--data", choices=DATASETS, help="default: what the energy was trained on")
    p.add_argument("--folder", type=Path, help="a local folder that holds the dataset's files")
    p.add_argument("--first", type=int, default=0, help="number of the first test image (default 0)")
    p.add_argument("--images", type=positive_int, help="number of test images (default: the plan's)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="auto", help="auto (a GPU when there is one), cpu, cuda, cuda:1, ...")
    p.add_argument("--workers", type=positive_int, default=1, help="processes of one thread each, on a CPU (default 1)")
    p.add_argument("--ray", metavar="ADDRESS", help="search on every CPU, or GPU, of a Ray cluster instead")
    p.add_argument("--out", type=Path, help="default: runs/BUNDLE/PLAN-PRESET")
    p.add_argument("--resume", action="store_true", help="go on with the evaluation that --out holds")

    p = commands.add_parser("report", help=report.__doc__, description=report.__doc__)
    p.set_defaults(run=report)
    p.add_argument("folder", type=Path)

    p = commands.add_parser("igebm-robustness", help=igebm_robustness.__doc__, description=igebm_robustness.__doc__)
    p.set_defaults(run=igebm_robustness)
    result_arguments(p)
    p.add_argument("--device", default="auto", help="auto (a GPU when there is one), cpu, cuda, cuda:1, ...")

    p = commands.add_parser("compare", help=compare.__doc__, description=compare.__doc__)
    p.set_defaults(run=compare)
    p.add_argument("a", type=Path)
    p.add_argument("b", type=Path)
    p.add_argument("-o", "--out", type=Path, default=Path("comparison.html"))


def _plan(options: argparse.Namespace) -> Plan:
    """The named plan with the command's changes; a changed plan says so in its name."""
    plan = load_plan(options.preset).without(options.skip)
    overrides = [*options.set, *([f"images={options.images}"] if options.images else [])]
    if not overrides and not options.skip:
        return plan
    table = apply_overrides(plan.model_dump(mode="json"), [*overrides, f"name={plan.name}*"])
    return validate(Plan, table, "--set")


def _second(folder: Path | None, manifest: Manifest, device: torch.device) -> Bundle | None:
    """The bundle to transfer from; raises QuestionError when it reads other images or knows other classes."""
    if folder is None:
        return None
    second = load_bundle(folder, device)
    if second.manifest.image != manifest.image or second.manifest.class_names != manifest.class_names:
        raise QuestionError(f"--transfer-from {folder}: its images or classes are not those of {manifest.name}")
    return second
