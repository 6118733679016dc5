"""Two processes train what one would, and their run goes on with one; noise and rows are shared out exactly."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from models.data import load_dataset
from models.data_batches import BatchPlan, drawn_batches
from models.errors import ConfigError, TrainingDiverged
from models.image_files import encode_png
from models.networks import build_network
from models.noise import SeededNoise
from models.training.batches import DataStarts
from models.training.distributed import NoiseOfShare, ShardedRows, World
from models.training.program import check_fit
from models.training.recipe import load_recipe
from models.training.run import load_checkpoint, read_metrics

COMMON = ["sampler.num_steps=4", "network.arguments.width=8"]
SHORT = [
    *COMMON,
    "initialiser.network={ name = 'small_generator' }",
    "short_run.batch_size=25",  # shares of 12 and 13
    "short_run.bank_size=101",
    "short_run.checkpoint_every=1000",
    "warm_start={ updates = 5, batch_size = 25 }",
]
LONG = [
    *COMMON,
    "data={ name = 'folder', side = 8, channels = 1, streaming = true }",
    "initialiser={ kind = 'data' }",
    "prior={ tau = 0.5 }",
    "long_run.bank_size=101",
    "long_run.burn_in_size=81",
    "long_run.burn_in_updates=4",
    "long_run.bank_precision=bfloat16",
]

IMPLICIT = [
    "sampler.num_steps=4",
    "network.arguments.stem=4",
    "network.arguments.blocks=[[4, true]]",
    "implicit_run.batch_size=25",  # shares of 12 and 13
    "implicit_run.bank_size=101",
    "implicit_run.objective=logsumexp",
    "implicit_run.kl_steps=1",
    "implicit_run.checkpoint_every=1000",
]


def launch(recipe: str, overrides: list[str], folder: Path, processes: int) -> str:
    """What it prints; raises where it fails."""
    program = ["-m", "tests.models.small_networks"]
    if processes > 1:
        program = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), *program]
    sets = [part for override in overrides for part in ("--set", override)]
    command = ["train", recipe, "--out", str(folder), "--resume", "--amend", "--device", "cpu", *sets]
    process = subprocess.Popen(
        [sys.executable, *program, *command],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=180)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)  # torchrun passes it on to its workers
        process.wait()
        raise
    assert process.returncode == 0, errors
    return output


@pytest.mark.parametrize(
    ("recipe", "regime", "overrides"),
    [
        ("digits_short", "short", SHORT),
        ("digits_long", "long", LONG),
        ("igebm_digits_conditional", "implicit", IMPLICIT),
    ],
)
def test_two_processes_train_what_one_does_and_one_goes_on(
    tmp_path: Path, recipe: str, regime: str, overrides: list[str]
) -> None:
    """The same chains and losses but for the order of sums, six updates in both ways and six more in one process."""
    if overrides is LONG:
        overrides = [*LONG, f"data.folder={write_digits(tmp_path / 'pictures', 70)}"]
    section = f"{regime}_run.updates="
    for folder, processes, updates in (("two", 2, 6), ("two", 1, 12), ("one", 1, 12)):
        output = launch(recipe, [*overrides, f"{section}{updates}"], tmp_path / folder, processes)
        assert output.count("CPU hours in all") == 1, "the leading process alone speaks"
    one, two = read_metrics(tmp_path / "one"), read_metrics(tmp_path / "two")
    assert len(one) == len(two) >= 12
    for line, other in zip(one, two, strict=True):
        assert line.keys() == other.keys()
        for key in line.keys() - {"cpu_seconds"}:
            # A bank in bfloat16 makes steps of 2^-8 out of the last bits of a sum.
            assert other[key] == pytest.approx(line[key], rel=1e-3, abs=1e-3), (key, line["update"])
    first, second = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("one", "two"))
    for key, weight in first["average"].items():
        assert torch.allclose(second["average"][key], weight, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("digits_long", "long_run.batch_size=1", "batch_size 1 is less than the 2 processes that share it"),
        ("digits_classifier", "seed=0", "a classifier trains in one process, got 2"),
    ],
)
def test_what_two_processes_can_not_share_is_refused(name: str, override: str, message: str) -> None:
    recipe = load_recipe(name, [override])
    network = build_network(recipe.network.name, recipe.network.arguments)
    with pytest.raises(ConfigError, match=message):
        check_fit(recipe, network, load_dataset("digits", "train"), World(1, 2))


def write_digits(folder: Path, count: int) -> Path:
    """The first digits as PNG files."""
    folder.mkdir()
    for number, image in enumerate(load_dataset("digits", "train").images[:count]):
        (folder / f"{number:03}.png").write_bytes(encode_png(image))
    return folder


def share_starts(world: World) -> None:
    """Starts that two processes read halves of; each has them all in the end."""
    read: list[int] = []

    def images(rows: Tensor) -> Tensor:
        read.extend(rows.tolist())
        return rows.to(torch.uint8).view(-1, 1, 1, 1)

    def starts(rank: int, size: int) -> DataStarts:
        batches = drawn_batches(images, 200, BatchPlan(5, seed=0, rank=rank, world=size), in_memory=True)
        return DataStarts(batches, 5, torch.device("cpu"), World(rank, size))

    shared = starts(world.rank, world.size)
    found = torch.cat([shared(count).images for count in (3, 0, 4)])
    own = read.copy()
    read.clear()
    assert len(own) == 2 * (2, 3)[world.rank]
    assert torch.equal(found, starts(0, 1)(7).images)
    assert set(own) < set(read)


def share_rows(rank: int, folder: str) -> None:
    """What one of two processes does with rows that are shared out; its errors end the test."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    world = World(rank, 2)
    whole = torch.arange(14.0).view(7, 2)
    rows = ShardedRows.of(whole, torch.device("cpu"), torch.bfloat16, world)
    assert rows.held.shape == ((3, 2), (4, 2))[rank]
    drawn = torch.tensor([6, 0, 3, 2])
    assert torch.equal(rows.read(drawn), whole[drawn].bfloat16())
    rows.write(drawn, -whole[drawn])
    expected = whole.clone()
    expected[drawn] *= -1
    assert torch.equal(rows.whole(), expected.bfloat16())
    assert torch.equal(world.join(whole[world.share(7)], 7), whole)
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.full((2,), 1.0 + rank)
    world.sum_gradients([weight])
    assert torch.equal(weight.grad, torch.tensor([3.0, 3.0]))
    world.check_identical([weight], update=5)
    share_starts(world)
    with pytest.raises(TrainingDiverged, match="update 5 1 weights differ"):
        world.check_identical([weight.detach() + torch.tensor([0.0, 1e-7 * rank])], update=5)
    dist.destroy_process_group()


def test_rows_are_shared_out_and_weights_compared(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(share_rows, (str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_shares_of_the_noise_are_rows_of_the_whole(size: int) -> None:
    """Drawn at once, as on a GPU, or a generator a chain, as on CPU cores."""
    x = torch.zeros(7, 1, 2, 2)
    whole = SeededNoise(torch.Generator().manual_seed(3))(x)
    (apart,) = SeededNoise(torch.Generator().manual_seed(3)).divide([slice(0, 7)])
    chainwise = apart(x)
    at_once, divided = [], []
    for rank in range(size):
        share = World(rank, size).share(7)
        at_once.append(NoiseOfShare(SeededNoise(torch.Generator().manual_seed(3)), 7, World(rank, size))(x[share]))
        noise = NoiseOfShare(SeededNoise(torch.Generator().manual_seed(3)), 7, World(rank, size))
        parts = [slice(1), slice(1, share.stop - share.start)]
        divided += [each(x[share][part]) for each, part in zip(noise.divide(parts), parts, strict=True)]
    assert torch.equal(torch.cat(at_once), whole)
    assert torch.equal(torch.cat(divided), chainwise)
