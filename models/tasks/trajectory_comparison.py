"""An energy and a regression that predict the same trajectories: trained alike, chosen on some held-out rollouts and
scored on others. Every part that is finished is kept in a folder, and found there when the comparison goes on."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean

import torch
from pydantic import Field
from torch import Tensor, nn

from models.config import Frozen
from models.console import progress_bar
from models.data_trajectories import SHAPE, WINDOW, Rollouts, encoded_windows, hand_rollouts
from models.files import replace_file
from models.hand_simulation import JOINTS
from models.kept import kept_record
from models.tasks.trajectories import (
    Advance,
    Future,
    Scores,
    by_chains,
    by_network,
    distances,
    futures,
    known_entries,
    roll_forward,
    score,
)
from models.tasks.trajectory_models import Learning, residual_root, trained_energy, trained_step_network
from models.training.run import load_trained
from models.trajectory_windows import WindowCode

ENERGY, NETWORK, NOISY = "energy", "fully connected", "fully connected, noise added"
PAST = WINDOW - 1


class Try(Frozen):
    """What is tuned: a learning rate, and for the regression whether its maps are spectrally normalised."""

    rate: float = Field(gt=0)
    spectral_norm: bool = False

    def __str__(self) -> str:
        return f"{self.rate:g}{'-normalised' if self.spectral_norm else ''}"


class Size(Frozen):
    """How large a comparison is.

    Args:
        energies, networks: what is tried of each with the first seed.
        chain_steps: Langevin steps to a predicted state.
        stride: frames from one start to the next in a rollout.
        samples, sampled_starts: futures from each of so many starts, for their diversity.
    """

    learning: Learning = Learning()
    energies: tuple[Try, ...] = (Try(rate=4e-4), Try(rate=2e-4))
    networks: tuple[Try, ...] = (Try(rate=1e-3), Try(rate=3e-4), Try(rate=1e-3, spectral_norm=True))
    chain_steps: int = Field(default=60, ge=1)
    seeds: int = Field(default=3, ge=1)
    horizon: int = Field(default=30, ge=1)
    stride: int = Field(default=8, ge=1)
    samples: int = Field(default=12, ge=2)
    sampled_starts: int = Field(default=64, ge=1)


class Part(Frozen):
    """A finished part; `cpu_seconds` are those of its predictions, and of a regression's training."""

    scores: Scores
    cpu_seconds: float


@dataclass(frozen=True)
class Comparison:
    """The data of a comparison in `folder`, and its parts as they are asked for."""

    folder: Path
    device: torch.device
    size: Size
    _energies: dict[Path, nn.Module] = field(default_factory=dict)

    @cached_property
    def train(self) -> Rollouts:
        """The training rollouts."""
        return hand_rollouts("train", self.size.learning.data)

    @cached_property
    def code(self) -> WindowCode:
        """Of the training rollouts."""
        return WindowCode.fit(self.train.states, self.train.actions)

    @cached_property
    def held_out(self) -> tuple[Future, Future]:
        """Starts in the first half of the test rollouts, for choosing, and in the second, for scoring."""
        rollouts = hand_rollouts("test", self.size.learning.data)
        halves = zip(*(each.chunk(2) for each in (rollouts.states, rollouts.actions)), strict=True)
        choose, judge = (self._starts(Rollouts(*half)) for half in halves)
        return choose, judge

    @property
    def floor(self) -> tuple[float, ...]:
        """The Fréchet distance of as many training trajectories from those that are predicted, at each step."""
        judged = self.held_out[1].states
        others = self._starts(self.train).states[: len(judged)]
        return distances(*(self.code.standardised(each) for each in (others, judged[: len(others)])))

    def compare(self, actions: bool) -> tuple[dict[str, list[Scores]], dict[str, str]]:
        """The scores of each model's seeds, with or without known actions, and which try of it was chosen."""
        energy = self._best("energy", self.size.energies, actions)
        network = self._best("network", self.size.networks, actions)
        seeds = range(self.size.seeds)
        found = {
            ENERGY: [self._scores("energy", energy, seed, actions, "test") for seed in seeds],
            NETWORK: [self._scores("network", network, seed, actions, "test") for seed in seeds],
            NOISY: [self._scores("noisy", network, seed, actions, "test") for seed in seeds],
        }
        return found, {ENERGY: str(energy), NETWORK: str(network)}

    def samples(self, actions: bool = False) -> tuple[Future, Tensor, Tensor]:
        """Some starts, futures [K, N, H, S] by the chosen energy, and the chosen regression's [N, H, S]."""
        count = self.size.sampled_starts
        start = Future(*(each[:count] for each in self.held_out[1]))
        repeated = Future(*(each.repeat(self.size.samples, 1, 1) for each in start))
        energy = self._advance("energy", self._best("energy", self.size.energies, actions), 0, actions)
        network = self._advance("network", self._best("network", self.size.networks, actions), 0, actions)
        drawn = self._predict(energy, repeated, actions, "samples").unflatten(0, (self.size.samples, -1))
        return start, drawn, self._predict(network, start, actions, "regression")

    @property
    def standing(self) -> Scores:
        """Of the last known state, for all of the future."""
        start = self.held_out[1]
        return score(start.past[:, -1:].expand_as(start.states), start, self.code)

    @property
    def cpu_seconds(self) -> float:
        """Of all finished parts, in this and earlier sessions; without the simulation."""
        parts = [Part.model_validate_json(path.read_bytes()).cpu_seconds for path in self.folder.glob("scores/*.json")]
        runs = [load_trained(path, "energy")[0]["cpu_seconds"] for path in self.folder.glob("energy-*/checkpoint.pt")]
        return float(sum(parts) + sum(runs))

    def _starts(self, rollouts: Rollouts) -> Future:
        chosen = futures(rollouts, PAST, self.size.horizon, self.size.stride)
        return Future(*(each.to(self.device) for each in chosen))

    def _known(self, actions: bool) -> Tensor:
        return known_entries(WINDOW, JOINTS, SHAPE[2], actions).to(self.device)

    def _best(self, kind: str, tries: Sequence[Try], actions: bool) -> Try:
        def distance(attempt: Try) -> float:
            return float(fmean(self._scores(kind, attempt, 0, actions, "choice").states))

        return min(tries, key=distance)

    def _scores(self, kind: str, attempt: Try, seed: int, actions: bool, half: str) -> Scores:
        name = f"{kind}-{attempt}-seed{seed}-{'with' if actions else 'without'}-actions-{half}"
        file = self.folder / "scores" / f"{name}.json"
        if (kept := kept_record(file, Part, "scores")) is not None:
            return kept.scores
        trained = time.process_time()
        advance = self._advance(kind, attempt, seed, actions)
        began = time.process_time() if kind == "energy" else trained  # an energy's run counts its own seconds
        start = self.held_out[0 if half == "choice" else 1]
        scores = score(self._predict(advance, start, actions, name), start, self.code)
        part = Part(scores=scores, cpu_seconds=time.process_time() - began)
        replace_file(file, part.model_dump_json().encode())
        return scores

    def _predict(self, advance: Advance, start: Future, actions: bool, name: str) -> Tensor:
        with progress_bar(name, self.size.horizon) as progress:
            return roll_forward(
                advance, self.code, start, self._known(actions), lambda: progress.advance(progress.task_ids[0])
            )

    def _advance(self, kind: str, attempt: Try, seed: int, actions: bool) -> Advance:
        known, learning = self._known(actions), self.size.learning
        generator = torch.Generator(self.device).manual_seed(seed)
        if kind == "energy":
            folder = self.folder / f"energy-{attempt}-seed{seed}"
            if folder not in self._energies:
                self._energies[folder] = trained_energy(learning, attempt.rate, seed, folder, self.device)
            sampler = learning.sampler.model_copy(update={"num_steps": self.size.chain_steps})
            return by_chains(self._energies[folder], sampler, known, generator)
        file = self.folder / f"network-{attempt}-seed{seed}-{'with' if actions else 'without'}-actions.safetensors"
        network = trained_step_network(learning, known, attempt.rate, attempt.spectral_norm, seed, file)
        if kind == "network":
            return by_network(network, known)
        images = encoded_windows(self.train, self.code).images
        return by_network(network, known, residual_root(network, images, known), generator)
