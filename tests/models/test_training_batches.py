"""What a training reads: a stream a purpose, restarts one image at a time, streamed sets like those in memory."""

from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from models.data import ImageDataset
from models.pixels import from_uint8
from models.training.batches import DataStarts, DataStreams, Purpose
from models.training.program import train_recipe
from models.training.recipe import load_recipe
from models.training.run import load_checkpoint, read_metrics
from tests.models.pictures import write_classes

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def numbers() -> ImageDataset:
    """Image i holds the constant i."""
    images = torch.arange(200, dtype=torch.uint8).view(-1, 1, 1, 1)
    return ImageDataset("numbers", images, torch.zeros(200, dtype=torch.int64), ())


def test_every_purpose_of_every_seed_has_its_own_stream(numbers: ImageDataset) -> None:
    batches = [
        next(DataStreams(numbers, seed, flip=False).batches(purpose, 20)).flatten().tolist()
        for seed in range(5)
        for purpose in get_args(Purpose)
    ]
    assert len(set(map(tuple, batches))) == 20


def test_a_checkpoint_holds_where_each_stream_stands(numbers: ImageDataset) -> None:
    streams = DataStreams(numbers, 0, flip=False)
    positives, restarts = streams.batches("positives", 4), streams.starts("restarts", 4, CPU)
    for _ in range(3):
        next(positives)
    restarts(6)
    state = streams.state_dict()
    assert state == {"positives": {"batches": 3}, "restarts": {"stream": {"batches": 1}, "taken": 2}}
    again = DataStreams(numbers, 0, flip=False)
    again.load_state_dict(state)
    assert again.state_dict() == state, "before anything is read"
    assert torch.equal(next(again.batches("positives", 4)), next(positives))
    assert torch.equal(again.starts("restarts", 4, CPU)(5).images, restarts(5).images)


def test_starts_are_the_images_of_the_batches_one_by_one(numbers: ImageDataset) -> None:
    """However many are asked for at a time, and across a restored state."""
    batches = DataStreams(numbers, 0, flip=False).batches("restarts", 4)
    expected = from_uint8(torch.cat([next(batches) for _ in range(6)]))
    found = []
    state: dict[str, Any] = {}
    for count in (3, 0, 1, 0, 9, 4, 0, 7):
        streams = DataStreams(numbers, 0, flip=False)
        streams.load_state_dict(state)
        starts = streams.starts("restarts", 4, CPU)
        found += [starts(count).images, starts(0).images]
        state = streams.state_dict()
    assert torch.equal(torch.cat(found), expected)


def test_no_batch_is_read_before_one_of_its_images_is_used(numbers: ImageDataset) -> None:
    batches = DataStreams(numbers, 0, flip=False).batches("restarts", 4)
    starts = DataStarts(batches, 4, CPU)
    read = []
    for _ in range(9):
        starts(1)
        read.append(batches.state_dict()["batches"])
    assert read == [1] * 4 + [2] * 4 + [3]


def test_a_streamed_folder_teaches_what_the_decoded_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMPID_CACHE", str(tmp_path / "cache"))
    pictures = write_classes(tmp_path / "pictures", {"a": 70, "b": 30})
    overrides = [
        f"data={{ name = 'folder', folder = '{pictures}', side = 8, channels = 1 }}",
        "network.arguments.width=8",
        "sampler.num_steps=2",
        "warm_start.updates=3",
        "mid_run={ updates = 4, bank_size = 150, rejuvenation_prob = 0.3, data_noise = 0.1, learning_rates = 1e-4 }",
    ]
    lines = {}
    for streaming in ("true", "false"):
        folder = tmp_path / streaming
        recipe = load_recipe("digits_midrun", [*overrides, f"data.streaming={streaming}"])
        train_recipe(recipe, folder, False, False, CPU)
        assert (tmp_path / "cache").exists() == (streaming == "false"), "a stream keeps no decoded images"
        lines[streaming] = [{**line, "cpu_seconds": 0} for line in read_metrics(folder)]
        # 150 first states, then restarts as the coins fell: batches of 64 that were begun.
        restarts = sum(line.get("restarts", 0) for line in lines[streaming])
        data = load_checkpoint(folder / "checkpoint.pt")["data"]
        assert data["bank start"] == {"stream": {"batches": 2}, "taken": 150 - 128}
        assert data["restarts"]["stream"]["batches"] * 64 + data["restarts"]["taken"] == restarts > 0
        assert (data["warm start"], data["positives"]) == ({"batches": 3}, {"batches": 4})
    assert lines["true"] == lines["false"]
