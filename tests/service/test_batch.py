"""python -m service.batch on the digits bundle: each image once, whatever the batches, files and ends of runs."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import Table, array, parquet

from models.bundle import Bundle
from models.data import ImageDataset
from models.image_files import encode_png
from models.pixels import distance_l2, from_uint8
from service.answers import classified
from service.auth import Caller
from service.batch.__main__ import main
from service.batch.answering import Answerer, Item, stream_of_key
from service.errors import ChainDivergedError, DecodingError, EngineError
from service.intake import Answered
from service.options import ClassifyOptions
from service.parameters import Plan, plan_classification
from service.schemas import ClassifiedImage
from service.settings import Settings
from tests.server_process import DIGITS, ROOT
from tests.service.conftest import FakeEnergy

COUNT = 21
CORRUPT = {"a/corrupt.png": b"\x89PNG\r\n\x1a\nnonsense", "b/wide.png": b""}
Row = dict[str, Any]


@pytest.fixture(scope="module")
def digits(digits_test: ImageDataset) -> list[bytes]:
    return [encode_png(image) for image in digits_test.images[:COUNT]]


@pytest.fixture(scope="module")
def folder(digits: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`COUNT` digits, one picture of another size, a file that is no picture, and files that are passed over."""
    folder = tmp_path_factory.mktemp("images")
    wide = io.BytesIO()
    Image.new("L", (9, 8)).save(wide, "PNG")
    for number, content in enumerate(digits):
        _write(folder / f"{number % 3}" / f"{number:02d}.png", content)
    for name, content in (CORRUPT | {"b/wide.png": wide.getvalue(), "notes.txt": b"", ".hidden.png": b""}).items():
        _write(folder / name, content)
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one uninterrupted run makes of `folder`."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert batch(folder, out, "--part-size", "8") == 0
    return out


def test_each_image_has_one_row_with_the_fields_of_classify(whole: Path, folder: Path) -> None:
    found = rows(whole)
    keys = [path.relative_to(folder).as_posix() for path in folder.rglob("[!.]*.png")]
    assert sorted(row["key"] for row in found) == sorted(keys)
    assert [row["index"] for row in found] == list(range(COUNT + 2))
    failed = {row["key"]: row for row in found if row["status"] != 200}
    assert failed.keys() == CORRUPT.keys()
    assert "9x8 pixels" in failed["b/wide.png"]["problem"]["detail"]
    assert failed["a/corrupt.png"]["problem"]["type"] == "urn:limpid:problem:unusable-image"
    for row in found:
        if row["status"] == 200:
            assert row.keys() - {"index", "key", "status"} == ClassifiedImage.model_fields.keys()
            assert row["mean_steps"] == 40.0


def test_parts_and_neighbours_change_no_bit(whole: Path, folder: Path, tmp_path: Path) -> None:
    assert batch(folder, tmp_path / "out", "--part-size", "5") == 0
    assert rows(tmp_path / "out") == rows(whole)
    alone = tmp_path / "alone"
    _write(alone / "1" / "04.png", (folder / "1" / "04.png").read_bytes())
    assert batch(alone, tmp_path / "one") == 0
    (row,) = rows(tmp_path / "one")
    assert row | {"index": 0} == next(each for each in rows(whole) if each["key"] == "1/04.png") | {"index": 0}


def test_another_seed_gives_another_answer(whole: Path, folder: Path, tmp_path: Path) -> None:
    assert batch(folder, tmp_path / "out", "--seed", "2") == 0
    assert rows(tmp_path / "out") != rows(whole)


def test_cores_change_no_bit(digits_bundle: Bundle, digits_test: ImageDataset, one_thread: None) -> None:
    """Each core has its own share of a fixed size, so two cores compute what one does."""
    plan = _plan(digits_bundle)

    def answers(threads: int) -> dict[str, ClassifiedImage]:
        torch.set_num_threads(threads)
        answerer = Answerer(digits_bundle, plan, partial(stream_of_key, 1), 16, torch.device("cpu"))
        torch.set_num_threads(1)  # the classifier's operations use one core either way
        items = (Item(0, number, str(number), digits_test.images[number]) for number in range(12))
        found = {item.key: outcome for item, outcome in answerer.answers(items)}
        answerer.close()
        return {key: classified(each, plan, digits_bundle) for key, each in found.items() if isinstance(each, Answered)}

    assert len(answers(1)) == 12
    assert answers(1) == answers(2)


def test_a_killed_run_goes_on_to_the_same_output(whole: Path, folder: Path, tmp_path: Path) -> None:
    """SIGKILL while parts are being written; the seed is the folder's, for it is not given again."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "service.batch", str(folder), str(out), "--bundle", str(DIGITS)]
    options = ["--seed", "1", "--part-size", "1"]
    with subprocess.Popen(
        [*command, *options], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 60
        while len(list(out.glob("part-*"))) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert 2 <= len(before) < COUNT + 2
    assert main([str(folder), str(out), "--bundle", str(DIGITS), "--part-size", "1"]) == 0
    assert rows(out) == rows(whole)
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())


def test_tables_and_shards_are_answered_like_files(digits: list[bytes], tmp_path: Path) -> None:
    """Without steps there is no noise, so that only the image decides; row 5 of the table holds none."""
    values: list[bytes | None] = [*digits]
    values[5] = None
    images = [{"bytes": value, "path": None} for value in values]
    (tmp_path / "tables").mkdir()
    table = Table.from_pydict({"image": array(images), "label": list(range(COUNT)), "name": ["x"] * COUNT})
    parquet.write_table(table.slice(0, 16), tmp_path / "tables" / "a.parquet", row_group_size=3)
    parquet.write_table(table.slice(16), tmp_path / "tables" / "b.parquet")
    _write_shard(tmp_path / "digits-000.tar", digits)
    for number, content in enumerate(digits):
        _write(tmp_path / "files" / f"{number:02d}.png", content)
    found = {}
    for kind, source in {"tar": "digits-000.tar", "parquet": "tables", "images": "files"}.items():
        assert batch(tmp_path / source, tmp_path / kind, "--steps", "0", "--part-size", "4") == 0
        found[kind] = rows(tmp_path / kind)
    assert [row["key"] for row in found["tar"]][:2] == ["digits-000.tar/0000.png", "digits-000.tar/0001.png"]
    assert [row["key"] for row in found["parquet"]][15:17] == ["a.parquet#15", "b.parquet#0"]
    assert "holds no image" in found["parquet"][5]["problem"]["detail"]
    for expected, tar, row in zip(found["images"], found["tar"], found["parquet"], strict=True):
        assert tar | {"key": ""} == expected | {"key": ""}
        assert expected["index"] == 5 or row | {"key": ""} == expected | {"key": ""}


def test_purified_images_are_what_their_rows_say(folder: Path, tmp_path: Path) -> None:
    """As files and in a table: the same pixels, as far from the source as the row tells."""
    assert batch(folder, tmp_path / "files", "--task", "purify", "--part-size", "8") == 0
    assert batch(folder, tmp_path / "table", "--task", "purify", "--format", "parquet") == 0
    table = parquet.read_table(tmp_path / "table" / "part-000000.parquet").to_pylist()
    found = rows(tmp_path / "files")
    assert len(found) == len(table) == COUNT + 2
    for row, other in zip(found, table, strict=True):
        assert (row["index"], row["key"], row["status"]) == (other["index"], other["key"], other["status"])
        if row["status"] != 200:
            assert "file" not in row
            assert other["png"] is None
            assert other["problem"] == row["problem"]
            continue
        content = (tmp_path / "files" / row["file"]).read_bytes()
        assert content == other["png"]
        before, after = (_pixels(path) for path in (folder / row["key"], io.BytesIO(content)))
        assert row["distance"]["l2"] == pytest.approx(float(distance_l2(before, after)), abs=1e-3)
        assert row["distance"]["l2"] > 0
        assert row["distance"] == other["distance"]


def test_another_question_is_refused_with_the_differences(
    whole: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = sorted((path, path.read_bytes()) for path in whole.glob("*.json*"))
    assert batch(folder, whole, "--part-size", "8", "--replicates", "2") == 2
    assert "options: {} -> {'replicates': 2}" in capsys.readouterr().err
    assert batch(folder, whole, "--part-size", "8", "--task", "purify") == 2
    assert "task: 'classify' -> 'purify'" in capsys.readouterr().err
    other = tmp_path / "other"
    _write(other / "0" / "00.png", (folder / "0" / "00.png").read_bytes())
    assert batch(other, whole, "--part-size", "8") == 2
    assert "images: 23 -> 1" in capsys.readouterr().err
    assert sorted((path, path.read_bytes()) for path in whole.glob("*.json*")) == kept


def test_a_lost_or_doubled_row_is_found(whole: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = whole / "part-000001.jsonl"
    content = part.read_text()
    lines = content.splitlines(keepends=True)
    try:
        for damaged in (lines[1:], [lines[0], *lines[:-1]]):
            part.write_text("".join(damaged))
            assert batch(folder, whole, "--part-size", "8") == 2
            assert "does not hold images 8 to 15 once each" in capsys.readouterr().err
    finally:
        part.write_text(content)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "purify", "--top-k", "3"], "--top-k: Extra inputs"),
        (["--task", "purify", "--format", "jsonl"], "expected png, parquet"),
        (["--preset", "strongest"], "unknown preset 'strongest'; known: "),
        (["--steps", "100000"], "more than the 2000 allowed here"),
        (["--kind", "tar"], "holds no image"),
        (["--ray", "localhost:1", "--device", "cuda:1"], "with --ray say cpu or cuda"),
    ],
)
def test_what_makes_no_sense_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert batch(folder, tmp_path / "out", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("[!.]*"))


def test_sources_that_are_no_source_are_refused(
    digits: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed, damaged, packed = tmp_path / "mixed", tmp_path / "damaged.tar", tmp_path / "packed.tar"
    _write(mixed / "a.png", digits[0])
    _write_shard(mixed / "b.tar", digits)
    damaged.write_bytes((mixed / "b.tar").read_bytes()[:3000])
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(mixed / "a.png", "a.png")
    expected = {mixed: "also b.tar; say with --kind", damaged: "damaged", packed: "no uncompressed tar file"}
    for source, message in expected.items():
        assert batch(source, tmp_path / "out") == 2
        assert message in capsys.readouterr().err
    assert batch(mixed, mixed / "out", "--kind", "images") == 2
    assert "inside" in capsys.readouterr().err


def test_names_that_are_no_text_are_escaped(digits: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/\xff.png")).write_bytes(digits[0])
    assert batch(tmp_path / "in", tmp_path / "out", "--format", "parquet") == 0
    (row,) = parquet.read_table(tmp_path / "out" / "part-000000.parquet").to_pylist()
    assert (row["key"], row["status"]) == ("\\xff.png", 200)


def test_a_chain_that_diverges_fails_alone(bundle: Bundle, energy: FakeEnergy) -> None:
    bright = torch.full((1, 4, 4), 255, dtype=torch.uint8)
    energy.poison = lambda x: x.flatten(1).mean(1) > 0.9
    answerer = Answerer(bundle, _plan(bundle), partial(stream_of_key, 0), 16, torch.device("cpu"))
    images = {"dark": bright * 0, "bright": bright, "none": DecodingError("no image"), "grey": bright // 2}
    items = [Item(0, number, key, image) for number, (key, image) in enumerate(images.items())]
    found = {item.key: outcome for item, outcome in answerer.answers(items)}
    answerer.close()
    assert isinstance(found["bright"], ChainDivergedError)
    assert found["none"] is images["none"]
    assert isinstance(found["dark"], Answered)
    assert isinstance(found["grey"], Answered)


def test_what_is_not_the_images_fault_ends_the_run(bundle: Bundle, energy: FakeEnergy) -> None:
    def fail(x: torch.Tensor) -> None:
        raise MemoryError

    answerer = Answerer(bundle, _plan(bundle), partial(stream_of_key, 0), 16, torch.device("cpu"))
    energy.hook = fail
    with pytest.raises(EngineError):
        list(answerer.answers([Item(0, 0, "a", torch.zeros(1, 4, 4, dtype=torch.uint8))]))
    answerer.close()


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def batch(source: Path, out: Path, *options: str) -> int:
    """The command on the digits bundle, with seed 1 unless another is given."""
    return main([str(source), str(out), "--bundle", str(DIGITS), "--seed", "1", *options])


def rows(out: Path) -> list[Row]:
    """Every row, in the order of the parts."""
    return [json.loads(line) for path in sorted(out.glob("part-*.jsonl")) for line in path.read_text().splitlines()]


def _plan(bundle: Bundle) -> Plan:
    return plan_classification(ClassifyOptions(), bundle.manifest, Settings(), Caller("test", frozenset()))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _write_shard(path: Path, images: list[bytes]) -> None:
    """As WebDataset has it: for each sample an image and its label; one name is too long for the header."""
    with tarfile.open(path, "w") as tar:
        for number, content in enumerate(images):
            name = f"{'n' * 120}/{number:04d}" if number == 7 else f"{number:04d}"
            for suffix, data in (("png", content), ("cls", b"3")):
                member = tarfile.TarInfo(f"{name}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def _pixels(file: Path | io.BytesIO) -> torch.Tensor:
    with Image.open(file) as image:
        return from_uint8(torch.from_numpy(np.array(image)))[None, None]
