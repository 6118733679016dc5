"""The generation experiment to its end, on energies whose samples are known: Gaussians about the class means."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.data import load_dataset
from models.evaluation.features import FeatureNetwork
from models.networks import ARCHITECTURES
from models.pixels import from_uint8
from models.reproduce.igebm_generation import PICTURES, Size, remake
from models.tasks.generation import Round
from tests.models.small_networks import SMALL

LEARNING = (
    "sampler={ num_steps = 5, step_size = 0.3, temperature = 0.09 }",
    "implicit_run={ updates = 40, batch_size = 200, bank_size = 200, penalty = 0.0, adam_betas = [0.9, 0.999], "
    "spread_clip = [9.0, 9.0], learning_rates = 0.1, average_decay = 0.9, checkpoint_every = 40, keep_every = 10 }",
)
MINIATURE = Size(
    recipes=("igebm_digits", "igebm_digits_conditional"),
    overrides=LEARNING,
    members=2,
    num_steps=5,
    rounds=2,
    round=Round(bank_size=60, batch_size=60, calls=12),
    known=200,
    walk_calls=6,
)


class CentredAlone(nn.Module):
    """|x - c|^2 / 2, or |x - c[y]|^2 / 2 as `CentredEnergy`: the recipes' network, with or without classes."""

    def __new__(cls, classes: int = 0, **_: object) -> nn.Module:  # type: ignore[misc]
        return SMALL["centred"](classes) if classes else OneCentre()


class OneCentre(nn.Module):
    """|x - c|^2 / 2."""

    def __init__(self) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.zeros(1, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.centre).flatten(1).square().sum(1) / 2


class Flat(nn.Module):
    """Pixels [B, 3, 8, 8] in [0, 255] to the 64 of the first channel, in [-1, 1]."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels[:, 0].flatten(1) / 127.5 - 1


def by_class_means(device: torch.device) -> FeatureNetwork:
    """Pixels as features; the head's logits are -4 |x - mean of class|^2, but for what all classes share."""
    data = load_dataset("digits", "train")
    images = from_uint8(data.images).flatten(1)
    means = torch.stack([images[data.labels == label].mean(0) for label in range(10)])
    head = nn.Linear(64, 10)
    head.weight.data, head.bias.data = 8 * means, -4 * means.square().sum(1)
    return FeatureNetwork("Means", "distance to class means", Flat(), device, head.requires_grad_(False))


def test_classes_make_samples_various_and_nothing_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMPID_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(ARCHITECTURES, "residual", CentredAlone)
    found = remake(tmp_path, torch.device("cpu"), MINIATURE, by_class_means)
    ours = {each.what: each.ours for each in found.numbers}
    by_class, alone = (ours[f"{kind}: IS-Means (paper: Inception Score)"] for kind in ("conditional", "unconditional"))
    assert by_class is not None
    assert alone is not None
    assert by_class > 6.0
    assert alone < 4.0
    distances = [ours[f"{kind}: FD-Means (paper: FID)"] for kind in ("conditional", "unconditional")]
    assert distances[0] is not None
    assert distances[1] is not None
    assert distances[0] < distances[1]
    papers = {each.what: each.paper for each in found.numbers}
    assert papers["ensemble, switched: FD-Means (paper: FID)"] == 38.20
    assert papers["ensemble, averaged: FD-Means (paper: FID)"] is None
    copies = [value for what, value in ours.items() if "nearer to one training image" in what]
    assert len(copies) == 8
    assert all(value is not None and value < 15 for value in copies)
    assert found.details["class_to_class_reached"] == 1.0
    assert all((tmp_path / name).stat().st_size > 1000 for name in PICTURES)

    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("samples/*/*")}
    assert len(written) == 8
    again = remake(tmp_path, torch.device("cpu"), MINIATURE, by_class_means)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert json.loads(again.model_copy(update={"cpu_hours": 0.0}).model_dump_json()) == json.loads(
        found.model_copy(update={"cpu_hours": 0.0}).model_dump_json()
    )
