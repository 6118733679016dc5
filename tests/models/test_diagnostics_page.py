"""The page of a run, of short trainings on the digits: what it holds, that it stands alone, that it survives kills."""

import base64
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.__main__ import main
from models.data import load_dataset
from models.errors import ConfigError
from models.evaluation.fidelity import Estimate, Score
from models.networks import ARCHITECTURES
from models.training import page_sections as sections
from models.training.page import build_page, write_page
from models.training.page_fidelity import append_fidelity
from models.training.page_pictures import LARGEST, read_picture
from models.training.page_schedule import schedule, stages
from models.training.page_state import RunState
from models.training.program import train_recipe
from models.training.recipe import load_recipe
from models.training.run import load_checkpoint, read_metrics
from tests.html_page import Page
from tests.models.small_networks import SMALL
from tests.models.test_energy_learning import GENERATOR, LONG, SHORT

SHORT_RUN = [*SHORT, GENERATOR, "short_run.data_noise=0.0"]
MID_RUN = [
    "network.arguments.width=8",
    "sampler.num_steps=2",
    "warm_start.updates=4",
    "warm_start.log_every=1",
    "mid_run.updates=6",
    "mid_run.bank_size=64",
    "mid_run.learning_rates=[[0, 1e-4], [2, 1e-5], [4, 1e-6]]",
    "mid_run.num_steps=[[0, 2], [3, 4]]",
]
SCORES = tuple(
    Score(name=name, count=500, samples=Estimate(value=value), floor=Estimate(value=floor))
    for name, value, floor in (("FD-EffLite0", 41.5, 3.25), ("KID-EffLite0", 0.02, 0.0001))
)


@pytest.fixture(scope="module", autouse=True)
def small_networks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, network in SMALL.items():
            patch.setitem(ARCHITECTURES, name, network)
        yield


@pytest.fixture(scope="module")
def short_run(small_networks: None, tmp_path_factory: pytest.TempPathFactory) -> RunState:
    return train(tmp_path_factory.mktemp("runs") / "short", "digits_short", *SHORT_RUN)


def train(folder: Path, recipe: str, *overrides: str, resume: bool = False, amend: bool = False) -> RunState:
    train_recipe(load_recipe(recipe, overrides), folder, resume, amend, torch.device("cpu"))
    return state_of(folder)


def state_of(folder: Path) -> RunState:
    return RunState.of(folder, load_checkpoint(folder / "checkpoint.pt"), read_metrics(folder))


def page_of(folder: Path) -> Page:
    return Page((folder / "diagnostics.html").read_text())


def said(page: Page) -> str:
    return " ".join("".join(page.texts).split())


def checkpoint(recipe: str, overrides: list[str], update: int, **more: Any) -> dict[str, Any]:
    """What a checkpoint says of a run, without its networks."""
    own = {"recipe": load_recipe(recipe, overrides).model_dump_json(), "update": update}
    return {"amendments": [], "cpu_seconds": 5400.0, "bank": None, **own, **more}


def lines(count: int) -> list[dict[str, float]]:
    values = np.random.default_rng(0).standard_normal((count, 3)).tolist()
    return [
        {"update": i + 1, "energy_gap": a, "drift_norm": 2 + 0.1 * b, "energy_positives": 9 + c, "generator_loss": 2.0}
        for i, (a, b, c) in enumerate(values)
    ]


def test_a_short_run_leaves_a_page_that_stands_alone(short_run: RunState) -> None:
    source = (short_run.folder / "diagnostics.html").read_text()
    page = Page(source)
    tags = {tag for tag, _ in page.tags}
    assert "http" not in source
    assert not tags & {"script", "link", "iframe", "object"}
    addresses = [value for _, attrs in page.tags for name, value in attrs.items() if name in ("src", "href")]
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in addresses)
    assert all(found.startswith("#") for found in re.findall(r"url\(([^)]*)\)", source))
    assert "prefers-color-scheme: dark" in source
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {value[1:] for value in addresses if value.startswith("#")} <= set(ids)
    images = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    kept = [(short_run.folder / f"{name}.png").read_bytes() for name in ("negatives", "positives", "generated")]
    assert [base64.b64decode(each.partition(",")[2]) for each in images] == kept
    text = said(page)
    assert "short-run on digits" in text
    assert "6 of 6" in text
    assert "too early to tell" in text
    assert "128 chains, each drawn 3.0 times on average" in text
    assert "amendments none" in text
    drawings = [attrs["aria-label"] for _, attrs in page.tags if attrs.get("role") == "img"]
    assert [label.partition(":")[0] for label in drawings] == [
        *("Energy gap", "positives", "Drift length r", "Generator loss", "bank")
    ]
    assert tags >= {"svg", "details", "table"}


def test_positives_are_data_and_generated_images_the_averaged_generators(short_run: RunState) -> None:
    folder = short_run.folder
    data = {image.numpy().tobytes() for image in load_dataset("digits", "train").images}
    assert all(tile.tobytes() in data for tile in _tiles(folder / "positives.png"))
    assert not any(tile.tobytes() in data for tile in _tiles(folder / "negatives.png"))
    network = SMALL["small_generator"]().eval()
    network.load_state_dict(load_checkpoint(folder / "checkpoint.pt")["generator"]["average"])
    latents = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        made = ((network(latents) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)[:, 0].numpy()
    assert np.abs(np.stack(_tiles(folder / "generated.png")).astype(int) - made.astype(int)).max() <= 1


def _tiles(path: Path) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """The 32 images of a grid of 8 columns, back at their own size."""
    with Image.open(path) as opened:
        sheet = np.asarray(opened.convert("L"))[::2, ::2]
    return [
        np.ascontiguousarray(sheet[1 + 9 * row : 9 + 9 * row, 1 + 9 * column : 9 + 9 * column])
        for row in range(4)
        for column in range(8)
    ]


def test_a_resumed_and_amended_run_has_the_page_of_a_whole_one(tmp_path: Path, short_run: RunState) -> None:
    train(tmp_path, "digits_short", *SHORT_RUN, "short_run.updates=3")
    resumed = train(tmp_path, "digits_short", *SHORT_RUN, resume=True, amend=True)
    for section in (sections.traces, sections.correlations, schedule, sections.pictures, sections.ages):
        assert section(resumed) == section(short_run)
    assert sections.gap_figure(resumed) == sections.gap_figure(short_run)
    rows = [row for row in page_of(tmp_path).rows if "->" in row]
    assert [row.strip() for row in rows] == ["3short_run.updates: 3 -> 6"]


def test_half_a_line_and_lines_that_no_checkpoint_knows_are_left_out(tmp_path: Path, short_run: RunState) -> None:
    """As a kill leaves them, between two checkpoints."""
    killed = tmp_path / "short"
    shutil.copytree(short_run.folder, killed)
    (killed / "diagnostics.html").unlink()
    with (killed / "metrics.jsonl").open("a") as stream:
        stream.write('{"update": 7, "energy_gap": 1e9, "drift_norm": 1.0, "energy_positives": 0.0}\n')
        stream.write('{"update": 8, "ener')
    assert main(["diagnose", str(killed)]) == 0
    before = (short_run.folder / "diagnostics.html").read_text()
    assert (killed / "diagnostics.html").read_text().replace(str(killed), str(short_run.folder)) == before


def test_long_run_has_two_banks(tmp_path: Path) -> None:
    state = train(tmp_path, "digits_long", *LONG)
    (figures,) = sections.ages(state).blocks
    assert figures.kind == "figures"
    burning, learned = figures.items
    assert burning.caption.startswith("Burn-in: 70 chains, each drawn 5.5 times")
    assert "Drawn at age 3, a chain starts again at 0." in burning.caption
    assert learned.caption.startswith("Learned from: 80 chains, each drawn 4.8 times")
    assert "recipe, by now" in learned.svg
    assert "recipe, by now" not in burning.svg


def test_stages_are_those_of_all_schedules(tmp_path: Path) -> None:
    """The warm start counts as updates too; each stage is judged by its own lines."""
    state = train(tmp_path, "digits_midrun", *MID_RUN)
    assert [(stage.after, stage.last) for stage in stages(state)] == [(4, 6), (6, 7), (7, 8), (8, 10)]
    assert [stage.settings["learning rate"] for stage in stages(state)] == ["0.0001", "1e-05", "1e-05", "1e-06"]
    assert [stage.settings["Langevin steps"] for stage in stages(state)] == ["2", "2", "4", "4"]
    assert state.rate_steps == [6, 8]
    gaps = [line["energy_gap"] for line in read_metrics(tmp_path) if "energy_gap" in line]
    (block,) = schedule(state).blocks
    assert block.kind == "table"
    shown = [row.cells[5].text.replace("\N{MINUS SIGN}", "-") for row in block.groups[0].rows]
    means = [np.mean(part) for part in (gaps[:2], gaps[2:3], gaps[3:4], gaps[4:])]
    assert shown == [f"{mean:+.3f}" for mean in means]
    assert "Warm start loss" in said(page_of(tmp_path))


def test_before_the_regime_begins(tmp_path: Path) -> None:
    warm = [{"update": i, "warm_start_loss": 1.0 - 0.1 * i} for i in (1, 2)]
    write_page(tmp_path, checkpoint("digits_midrun", MID_RUN, 2), warm)
    text = said(page_of(tmp_path))
    assert "After 2 updates the regime has not begun." in text
    assert "There is no bank yet." in text
    assert "to come" in text


def test_the_verdict_is_of_the_latest_learning_rate_that_has_enough_updates(tmp_path: Path) -> None:
    rates = ["short_run.updates=1000", "short_run.learning_rates=[[0, 1e-4], [400, 1e-5], [700, 1e-6]]"]
    series = lines(750)
    for line in series[:400]:
        line["energy_gap"] -= 100.0
    now = build_page(RunState.of(tmp_path, checkpoint("digits_short", rates, 750), series))
    assert now.number == "oscillating"
    assert now.headline.startswith("Over updates 401 to 750")
    early = build_page(RunState.of(tmp_path, checkpoint("digits_short", rates, 450), series))
    assert (early.number, early.tone) == ("expanding", "warning")
    (table,) = schedule(RunState.of(tmp_path, checkpoint("digits_short", rates, 750), series)).blocks
    assert table.kind == "table"
    words = [(row.cells[5].text, row.cells[-1].text) for row in table.groups[0].rows]
    assert words == [("done", "expanding"), ("done", "oscillating"), ("now", "too early to tell")]


def test_a_long_run_of_large_pictures_stays_light(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 900, 3), dtype=np.uint8)
    for name in ("negatives", "positives", "generated"):
        Image.fromarray(noise).save(tmp_path / f"{name}.png")
    assert (tmp_path / "negatives.png").stat().st_size > 1_500_000
    assert len(read_picture(tmp_path / "negatives.png")) <= LARGEST
    append_fidelity(tmp_path, 5000, SCORES)
    bank = {"ages": torch.randint(1, 3, (10_000,)), "states": None}
    write_page(tmp_path, checkpoint("digits_short", ["short_run.updates=20000"], 12_000, bank=bank), lines(12_000))
    assert (tmp_path / "diagnostics.html").stat().st_size < 1_500_000
    assert "1 h 30 min (1.50 CPU hours)" in said(page_of(tmp_path))


def test_a_small_picture_is_left_as_it_is(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "x.png")
    assert read_picture(tmp_path / "x.png") == (tmp_path / "x.png").read_bytes()


def test_a_classifiers_checkpoint_has_no_such_page(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="energy"):
        RunState.of(tmp_path, checkpoint("digits_classifier", [], 1), [])
