"""Parquet tables of images."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from models.errors import DataError
from service.batch.parts import Content, Kind, Part, files_of, readable, root_of

ROWS_AT_A_TIME = 256


@dataclass(frozen=True)
class Tables:
    """Parquet files with a column of images, bytes or {bytes, ...} as in Hugging Face's; a key is FILE#ROW."""

    path: Path
    kind: Kind | None = None
    column: str | None = None

    @property
    def root(self) -> Path:
        return root_of(self.path)

    def parts(self, size: int) -> Iterator[Part]:
        """Rows of one file each."""
        number = first = 0
        for name, _ in files_of(self.path, "parquet", self.kind):
            with _table(self.root / name) as table:
                rows, _ = table.metadata.num_rows, _column(table, self.column, name)
            for start in range(0, rows, size):
                length = min(size, rows - start)
                yield Part(number, first, length, (name,), start)
                number, first = number + 1, first + length

    def read(self, part: Part) -> Iterator[tuple[str, Content]]:
        """From the row groups that hold the part."""
        (name,) = part.files
        stop = part.start + part.length
        with _table(self.root / name) as table:
            column = _column(table, self.column, name)
            groups, row = _row_groups(table, part.start, stop)
            for batch in table.iter_batches(ROWS_AT_A_TIME, row_groups=groups, columns=[column]):
                for value in batch.column(0):
                    if part.start <= row < stop:
                        yield f"{readable(name)}#{row}", _bytes_of(value.as_py())
                    row += 1


def _row_groups(table: Any, start: int, stop: int) -> tuple[list[int], int]:
    """The groups that hold rows `start` .. `stop` - 1, and the number of the first one's first row."""
    lengths = [table.metadata.row_group(number).num_rows for number in range(table.metadata.num_row_groups)]
    begins = [0, *accumulate(lengths)]
    groups = [number for number, (low, high) in enumerate(pairwise(begins)) if low < stop and high > start]
    return groups, begins[groups[0]]


def _table(path: Path) -> Any:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DataError("parquet files need pyarrow: pip install -e '.[batch]'") from error
    try:
        return ParquetFile(path)
    except (OSError, ArrowException) as error:
        raise DataError(f"{path} is not a parquet file: {error}") from error


def _column(table: Any, asked: str | None, name: str) -> str:
    """The column of images; raises DataError unless there is exactly one candidate, or the one asked for."""
    from pyarrow import types

    def holds_bytes(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    candidates = []
    for field in table.schema_arrow:
        nested = types.is_struct(field.type) and any(each.name == "bytes" for each in field.type)
        if holds_bytes(field.type) or nested:
            candidates.append(field.name)
    chosen = [each for each in candidates if asked in (None, each)]
    if len(chosen) != 1:
        asking = "one column of bytes" if asked is None else f"column {asked!r} of bytes"
        raise DataError(f"{name}: expected {asking}, got {', '.join(candidates) or 'none'}; say which with --column")
    return str(chosen[0])


def _bytes_of(value: Any) -> bytes | None:
    found = value.get("bytes") if isinstance(value, dict) else value
    return found if isinstance(found, bytes) else None
