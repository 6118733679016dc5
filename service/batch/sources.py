"""Folders of image files and tar shards, and which kind of source a path is."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from models.errors import DataError
from service.batch.parts import SUFFIXES, Content, Kind, Part, Source, files_of, readable, root_of, walk
from service.batch.tables import Tables


def open_source(path: Path, kind: Kind | None, column: str | None) -> Source:
    """What `path`, a file or a folder, holds.

    Args:
        kind: None for what its first file is; a file of another kind is then refused.
        column: the tables' column of images; None for the only one that can be.

    Raises:
        DataError: there is nothing there.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; expected an image folder, parquet files or tar shards")
    found = kind or next((known for _, known in walk(path, None)), None)
    if found is None:
        raise DataError(f"{path} holds none of {', '.join(sum(SUFFIXES.values(), ()))}")
    if found == "images":
        return Images(path, kind)
    return Shards(path, kind) if found == "tar" else Tables(path, kind, column)


@dataclass(frozen=True)
class Images:
    """Image files; a key is a path within the folder."""

    path: Path
    kind: Kind | None = None

    @property
    def root(self) -> Path:
        return root_of(self.path)

    def parts(self, size: int) -> Iterator[Part]:
        """So many files a part, across folders."""
        names = (name for name, _ in files_of(self.path, "images", self.kind))
        number = 0
        while files := tuple(islice(names, size)):
            yield Part(number, number * size, len(files), files)
            number += 1

    def read(self, part: Part) -> Iterator[tuple[str, Content]]:
        """Paths: whoever decodes reads them, several at a time."""
        return ((readable(name), self.root / name) for name in part.files)


@dataclass(frozen=True)
class Shards:
    """Uncompressed tar files of images, as WebDataset writes them; a key is SHARD/MEMBER. Members that are no image
    files are passed over."""

    path: Path
    kind: Kind | None = None

    @property
    def root(self) -> Path:
        return root_of(self.path)

    def parts(self, size: int) -> Iterator[Part]:
        """Each shard's headers are read, and its images skipped."""
        number = first = 0
        for name, _ in files_of(self.path, "tar", self.kind):
            with _shard(self.root / name) as tar:
                members = _members(tar)
                while chunk := list(islice(members, size)):
                    yield Part(number, first, len(chunk), (name,), chunk[0].offset)
                    number, first = number + 1, first + len(chunk)

    def read(self, part: Part) -> Iterator[tuple[str, Content]]:
        """One after another from where the part begins."""
        (name,) = part.files
        with _shard(self.root / name, part.start) as tar:
            for member in islice(_members(tar), part.length):
                file = tar.extractfile(member)
                assert file is not None
                yield readable(f"{name}/{member.name}"), file.read()


@contextmanager
def _shard(path: Path, start: int = 0) -> Iterator[tarfile.TarFile]:
    with path.open("rb") as file:
        file.seek(start)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                yield tar
        except tarfile.TarError as error:
            raise DataError(f"{path} is damaged, or no uncompressed tar file: {error}") from error


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    return (each for each in tar if each.isfile() and Path(each.name).suffix.lower() in SUFFIXES["images"])
