"""Trajectories of a robot hand, rolled forward by an energy and by a regression (IGEBM, arXiv 1903.08689)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

import torch
from torch import Tensor

from models.reproduce.result import Finding, Number
from models.tasks.trajectories import Future, Scores, diversity
from models.tasks.trajectory_comparison import ENERGY, NETWORK, NOISY, Comparison, Size
from models.tasks.trajectory_plot import Shown, plot_trajectories

PICTURE = "trajectories.png"
FRAME_SECONDS = 0.04
SETTINGS = {"actions unknown": False, "actions known": True}
JOINTS_SHOWN = {"wrist": 1, "first finger, middle joint": 3, "thumb, base": 19}

Found = Mapping[str, Mapping[str, Sequence[Scores]]]
"""By setting and model, the scores of each seed."""


def remake(folder: Path, device: torch.device, size: Size | None = None) -> Finding:
    """Train, choose on half of the held-out rollouts, predict the other half; parts that are finished are kept."""
    comparison = Comparison(folder, device, size or Size())
    compared = {setting: comparison.compare(actions) for setting, actions in SETTINGS.items()}
    found = {setting: scores for setting, (scores, _) in compared.items()}
    start, samples, regression = comparison.samples()
    floor = comparison.floor
    plot_trajectories(found, floor, _shown(start, samples, regression), FRAME_SECONDS, folder / PICTURE)
    return Finding(
        title="Trajectories of a robot hand",
        source="IGEBM's section on trajectories: what an energy rolls out is nearer to real trajectories, by Fréchet "
        "distance, than what a fully connected network does. Its trajectories and the policies that made them are not "
        "published, and its numbers could not be checked: none is repeated here.",
        numbers=tuple(_number(setting, name, runs) for setting, each in found.items() for name, runs in each.items()),
        setting=_setting(comparison),
        why=explain(found, floor),
        pictures=(PICTURE,),
        cpu_hours=comparison.cpu_seconds / 3600,
        details={
            "scores": {s: {n: [r.model_dump() for r in runs] for n, runs in each.items()} for s, each in found.items()},
            "chosen": {setting: chosen for setting, (_, chosen) in compared.items()},
            "floor": floor,
            "standing still": comparison.standing.model_dump(),
            "diversity": diversity(samples, comparison.code),
            "size": comparison.size.model_dump(mode="json"),
        },
    )


def explain(found: Found, floor: Sequence[float]) -> str:
    """What the distances say about energy and regression."""
    said = ["Our hand wanders at random where the paper's was controlled: only the order of the models compares."]
    for setting, models in found.items():
        energy, network, noisy = (mean_distance(models[name])[0] for name in (ENERGY, NETWORK, NOISY))
        said.append(
            f"With {setting} the energy's distance, {energy:.2f}, is {'' if energy < network else 'not '}below the "
            f"regression's, {network:.2f}; real trajectories from other starts have {fmean(floor):.2f}."
        )
        if energy < network:
            said.append("Regression gives the mean of the possible futures, which spreads less than they do.")
            bound = "as near as the energy or nearer" if noisy <= energy else "not as near as the energy"
            said.append(f"Gaussian noise of its own residuals brings it to {noisy:.2f}, {bound}.")
        else:
            said.append("Chains add their noise at every step, and what is nearly determined has little of its own.")
    return " ".join(said)


def mean_distance(runs: Sequence[Scores]) -> tuple[float, float | None]:
    """The Fréchet distance of states, mean over steps and seeds, and its standard deviation over seeds."""
    values = [fmean(run.states) for run in runs]
    return fmean(values), stdev(values) if len(values) > 1 else None


def _number(setting: str, name: str, runs: Sequence[Scores]) -> Number:
    mean, spread = mean_distance(runs)
    return Number(
        what=f"Fréchet distance, {setting}: {name}",
        paper=None,
        ours=mean,
        ours_spread=spread,
        spread=None if spread is None else f"standard deviation of {len(runs)} seeds",
    )


def _setting(comparison: Comparison) -> str:
    size, learning = comparison.size, comparison.size.learning
    rollouts, frames, _ = comparison.train.states.shape
    judged = len(comparison.held_out[1].states)
    widths = ", ".join(map(str, learning.widths))
    return (
        f"MuJoCo's Shadow hand under smooth random actions, every {FRAME_SECONDS} s: {rollouts} training rollouts of "
        f"{frames} frames; {judged} starts in rollouts apart from these, and from those that models were chosen on. An "
        f"energy of three frames and their actions, hidden layers of {widths}, chains of {size.chain_steps} steps a "
        f"state; the network has the same layers, {learning.updates:,} updates as the energy has, and "
        f"{len(size.networks)} tries to the energy's {len(size.energies)}. Distances are between the angles of "
        f"24 joints, in standard deviations, mean over {size.horizon} steps."
    )


def _shown(start: Future, samples: Tensor, regression: Tensor) -> list[Shown]:
    """The first start's joints."""
    past, real = start.past[0].cpu().T, start.states[0].cpu().T
    drawn, predicted = samples[:, 0].cpu().movedim(-1, 0), regression[0].cpu().T
    return [
        Shown(name, past[joint], real[joint], drawn[joint], predicted[joint]) for name, joint in JOINTS_SHOWN.items()
    ]
