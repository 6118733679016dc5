"""The experiment of continual learning, on digits: what it concludes, and that finished parts are kept."""

from pathlib import Path

import pytest
import torch

from models.errors import CheckpointError
from models.reproduce.igebm_continual import ELASTIC, TUNED, Settings, remake
from models.tasks.continual import SoftmaxLearning
from models.tasks.continual_runs import ENERGY, LEVELLED

CPU = torch.device("cpu")
SMALL = Settings(
    overrides=(
        "data.name=digits",
        "network.arguments={ size = 64, widths = [128, 128], classes = 10, gain = 3, fixed = true }",
        "implicit_run.updates=60",
        "implicit_run.batch_size=32",
        "implicit_run.bank_size=32",
        "sampler.num_steps=2",
    ),
    repeats=2,
    per_task=5,
    softmax=SoftmaxLearning(updates=100, batch_size=32, widths=(64,), fisher_images=64),
    strengths=(1e3,),
    held_out=200,
)


def test_energies_remember_what_a_fine_tuned_classifier_forgets(tmp_path: Path) -> None:
    """Two tasks of five digits: fine-tuning ends with the second half alone, energies with more than either half."""
    finding = remake(tmp_path, CPU, SMALL)
    ours = {number.what.partition(": ")[2]: number.ours or 0.0 for number in finding.numbers}
    assert set(ours) == {LEVELLED, ENERGY, TUNED, ELASTIC}
    after = finding.details["after each task"]
    assert min(repeat[0] for repeat in after[TUNED]) > 80, "the first task alone is learned"
    assert ours[TUNED] < 55
    assert min(ours[ENERGY], ours[LEVELLED]) > 60
    assert f"The lowest energy names {ours[ENERGY]:.1f} %, above the" in finding.why
    assert (tmp_path / finding.pictures[0]).stat().st_size > 10_000

    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    (tmp_path / "energy" / "repeat1" / "record.json").unlink()  # its runs are finished, and found again
    again = remake(tmp_path, CPU, SMALL)
    assert again.model_dump(exclude={"cpu_hours"}) == finding.model_dump(exclude={"cpu_hours"})
    changed = [path for path, time in kept.items() if path.stat().st_mtime_ns != time and path.name == "record.json"]
    assert changed == [tmp_path / "energy" / "repeat1" / "record.json"]
    with pytest.raises(CheckpointError, match=r"1000\.json belongs to another run .*updates: 100 -> 7"):
        remake(tmp_path, CPU, SMALL.model_copy(update={"softmax": SoftmaxLearning(updates=7)}))
