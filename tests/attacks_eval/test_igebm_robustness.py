"""The robustness experiment to its end, on energies |x - c[y]|^2 / 2: the classifier of the nearest class mean."""

from pathlib import Path

import pytest
import torch

from attacks_eval.igebm_robustness import PICTURE, Size, remake, with_bias
from models.data import load_dataset
from models.networks import ARCHITECTURES
from models.pixels import from_uint8
from models.training.trained import load_trained_energy
from tests.models.small_networks import SMALL

MINIATURE = Size(
    recipe="igebm_digits_conditional",
    overrides=(
        "network={ name = 'centred' }",
        "sampler={ num_steps = 5, step_size = 0.5, temperature = 0.25 }",
        "implicit_run={ updates = 90, batch_size = 200, bank_size = 400, penalty = 0.0, adam_betas = [0.9, 0.999], "
        "spread_clip = [9.0, 9.0], learning_rates = [[0, 0.1], [50, 0.02]], average_decay = 0.95, "
        "checkpoint_every = 90 }",
    ),
    fitted=300,
    clean=300,
    attacked=6,
    steps=2,
    plan="smoke",
)


def test_the_energy_of_class_means_is_the_classifier_of_the_nearest_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARCHITECTURES, "centred", SMALL["centred"])
    found = remake(tmp_path, torch.device("cpu"), MINIATURE)
    ours = {each.what: each.ours for each in found.numbers}
    train, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    known, asked = from_uint8(train.images).flatten(1), from_uint8(test.images).flatten(1)
    means = torch.stack([known[train.labels == label].mean(0) for label in range(10)])
    nearest = 100 * float((torch.cdist(asked, means).argmin(1) == test.labels).float().mean())
    assert nearest > 80
    assert ours["clean, argmin E of the image itself"] == pytest.approx(nearest, abs=4)
    assert ours["clean, argmin E after refinement"] == pytest.approx(nearest, abs=6)
    assert found.numbers[1].paper == 49.0
    clean, worst = ours["the 6 attacked, clean"], ours["held under the worst case of all attacks"]
    assert clean is not None
    assert worst is not None
    assert worst <= clean
    titles = [what for what in ours if what.startswith("held under")]
    assert sum("ignores the refinement" in title for title in titles) == 1
    assert any("full" in title for title in titles)
    assert (tmp_path / PICTURE).stat().st_size > 1000
    assert (tmp_path / "evaluation" / "report.html").exists()

    ledger = (tmp_path / "evaluation" / "ledger.jsonl").read_text()
    again = remake(tmp_path, torch.device("cpu"), MINIATURE)
    assert again.numbers == found.numbers
    assert again.cpu_hours >= found.cpu_hours  # what was spent before is not forgotten
    assert (tmp_path / "evaluation" / "ledger.jsonl").read_text().startswith(ledger)

    trained = load_trained_energy(tmp_path / "conditional" / "checkpoint.pt", torch.device("cpu"))
    wrong = (train.labels[:300] + 5) % 10
    assert "low energies do not mean likely classes" in with_bias(trained, train.images[:300], wrong)[1]
