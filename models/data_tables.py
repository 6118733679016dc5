"""Tables of images: parquet files in Hugging Face's layout, on this machine or streamed from the hub.

A row has an image `{bytes, path}` and perhaps a label. Both kinds go through the `datasets` library (extra `hub`):
pyarrow, which reading parquet needs in any case, is most of what it installs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from models.data_decoding import Encoded
from models.errors import DataError

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "fine_label")


@dataclass(frozen=True)
class HubDataset:
    """A public dataset on the Hugging Face hub.

    Args:
        splits: for each of our splits, what the hub calls it and its number of images, which is checked.
        configuration: which of the repository's datasets, where it has several.
    """

    repository: str
    splits: dict[str, tuple[str, int]]
    gated: bool = False
    configuration: str | None = None


@dataclass(frozen=True)
class Table:
    """Rows of images and labels; one shard a file. Nothing is opened before it is read.

    Args:
        arguments: of `datasets.load_dataset`.
        files: the shards' names in messages, where they are known.
        advice: the end of the message when the table does not open.
    """

    name: str
    identity: tuple[object, ...]
    length: int
    arguments: dict[str, Any]
    files: tuple[str, ...] = ()
    advice: str = ""

    def __len__(self) -> int:
        return self.length

    @cached_property
    def _table(self) -> Any:
        library = _library(self.name)
        try:
            return library.load_dataset(**self.arguments, streaming=True)
        except (OSError, ValueError, library.exceptions.DatasetsError) as error:
            raise DataError(f"{self.name}: {error}{self.advice}") from error

    @cached_property
    def _columns(self) -> tuple[str, str | None]:
        known = self._table.column_names or list(next(iter(self._table)))
        image = next((name for name in IMAGE_COLUMNS if name in known), None)
        if image is None:
            raise DataError(f"{self.name}: expected a column {' or '.join(IMAGE_COLUMNS)}, got {', '.join(known)}")
        return image, next((name for name in LABEL_COLUMNS if name in known), None)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names that the table's metadata has for its labels."""
        _, label = self._columns
        return tuple(getattr(self._table.features[label], "names", None) or ()) if label else ()

    @property
    def shards(self) -> int:
        """The number of files."""
        return int(self._table.num_shards)

    def read(self, shard: int, first: int) -> Iterator[Encoded]:
        """A file's rows from number `first` on; raises DataError that names the file and the row."""
        library = _library(self.name)
        image, label = self._columns
        columns = [image, label] if label else [image]
        # Bytes as they are: this package's own rules decode them.
        table = self._table.select_columns(columns).cast_column(image, library.Image(decode=False))
        where = self.files[shard] if self.files else f"{self.name}, file {shard}"
        rows = iter(table.shard(self.shards, shard).skip(first))
        try:
            for number, row in enumerate(rows, first):
                cell = row[image] or {}
                name = f"{where}, row {number}" + (f" ({cell['path']})" if cell.get("path") else "")
                if cell.get("bytes") is None:
                    raise DataError(f"{name}: the table has no bytes of this image")
                yield Encoded(cell["bytes"], -1 if label is None else int(row[label]), name)
        except (OSError, ValueError, library.exceptions.DatasetsError) as error:
            raise DataError(f"{where}: {error}") from error
        finally:
            rows.close()


def hub_table(name: str, dataset: HubDataset, split: str) -> Table:
    """A split of a dataset on the hub."""
    hub_split, length = dataset.splits[split]
    advice = "; data.folder takes a local copy"
    if dataset.gated:
        advice = (
            f"; {dataset.repository} is gated: accept its terms on its page at the hub and log in with "
            "`hf auth login`, or name a local copy in data.folder"
        )
    arguments: dict[str, Any] = {"path": dataset.repository, "split": hub_split}
    identity: tuple[object, ...] = ("hub", dataset.repository, hub_split)
    if dataset.configuration is not None:
        arguments["name"] = dataset.configuration
        identity = (*identity, dataset.configuration)
    return Table(name, identity, length, arguments, advice=advice)


def parquet_table(name: str, paths: Sequence[Path]) -> Table:
    """Parquet files on this machine, in the order given."""
    _library(name)  # pyarrow comes with it; where it is absent, the message names the extra
    from pyarrow import parquet

    files = tuple(str(path) for path in paths)
    stats = ((path.name, path.stat()) for path in paths)
    identity = ("parquet", *((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats))
    length = 0
    for file in files:
        try:
            length += parquet.read_metadata(file).num_rows
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: {error}") from error
    arguments = {"path": "parquet", "data_files": {"train": list(files)}, "split": "train"}
    return Table(name, identity, length, arguments, files)


def _library(name: str) -> ModuleType:
    """The `datasets` library, imported here because it takes seconds and is an extra."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"{name}: parquet files and the hub need the extra `hub`: pip install -e '.[hub]'") from error
    module: ModuleType = datasets
    return module
