"""Part files: each holds the rows of one part, is there whole or not at all, and is named by the part's number.

DEST/question.json                    what the output answers
DEST/part-000000.jsonl                rows as JSON lines, or
DEST/part-000000.parquet              rows as a table
DEST/images/part-000000/00000000.png  purified images, where rows are JSON lines; a row's `file` names its own
"""

import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from models.errors import CheckpointError, DataError
from models.files import replace_file
from service.batch.question import Format, Task
from service.batch.rows import Row

Status = tuple[int, int]
"""A row's index and status."""


def part_path(folder: Path, number: int, kind: Format) -> Path:
    """Where a part's rows are."""
    return folder / f"part-{number:06d}.{'parquet' if kind == 'parquet' else 'jsonl'}"


def write_part(folder: Path, number: int, kind: Format, task: Task, rows: Sequence[Row]) -> None:
    """Write a part's rows, and their images first: once the rows are there, the part is done."""
    path = part_path(folder, number, kind)
    if kind == "parquet":
        replace_file(path, _table(task, rows))
        return
    if kind == "png":
        rows = _write_images(folder, Path("images", path.stem), rows)
    replace_file(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode())


def read_statuses(folder: Path, number: int, kind: Format) -> Iterator[Status]:
    """The index and status of each row of a part; raises CheckpointError when they can not be read."""
    path = part_path(folder, number, kind)
    try:
        rows = _parquet_rows(path) if kind == "parquet" else map(json.loads, path.read_text().splitlines())
        for row in rows:
            yield row["index"], row["status"]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} can not be read ({error}); delete it, and it is made again") from error


def require_pyarrow() -> None:
    """Raise DataError unless tables can be written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise DataError("--format parquet needs pyarrow: pip install -e '.[batch]'") from error


def _write_images(folder: Path, place: Path, rows: Sequence[Row]) -> list[Row]:
    """The rows with `file` instead of `png`. Names are numbers: a key may hold anything, and come twice."""
    (folder / place).mkdir(parents=True, exist_ok=True)
    named, written = [], []
    for row in rows:
        content = row.get("png")
        if content is not None:
            file = place / f"{row['index']:08d}.png"
            (folder / file).write_bytes(content)
            written.append(folder / file)
            row = {name: value for name, value in row.items() if name != "png"} | {"file": file.as_posix()}
        named.append(row)
    for path in written:  # after the last is written, so that the disk is asked about once for most of them
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    return named


def _table(task: Task, rows: Sequence[Row]) -> memoryview:
    import pyarrow as pa
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(list(rows), _schema(task)), buffer)
    return buffer.getbuffer()


def _parquet_rows(path: Path) -> Iterator[Row]:
    from pyarrow import ArrowException, parquet

    try:
        rows: list[Row] = parquet.read_table(path, columns=["index", "status"]).to_pylist()
    except ArrowException as error:
        raise ValueError(str(error)) from error
    yield from rows


def _schema(task: Task) -> Any:
    """Every column of a task, so that all part files have the same, whatever their rows hold."""
    import pyarrow as pa

    text, number, whole = pa.string(), pa.float64(), pa.int64()
    prediction = pa.struct({"label": text, "index": whole, "probability": number})
    head = {"index": whole, "key": text, "status": pa.int32()}
    problem = {"problem": pa.struct({"type": text, "title": text, "detail": text})}
    answers: dict[Task, dict[str, Any]] = {
        "classify": {
            "predictions": pa.list_(prediction),
            "agreement": number,
            "undefended": prediction,
            "suspicion": number,
            "ood": number,
            "certificate": pa.struct(
                {
                    **{"label": text, "index": whole, "radius_l2": number, "sigma": number},
                    **{"confidence": number, "draws": whole, "abstained": pa.bool_()},
                }
            ),
            "mean_steps": number,
        },
        "purify": {
            **{"png": pa.binary(), "width": whole, "height": whole},
            **{"distance": pa.struct({"l2": number, "linf_255": number}), "mean_steps": number, "ood": number},
        },
    }
    return pa.schema({**head, **answers[task], **problem})
