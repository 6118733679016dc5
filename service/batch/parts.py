"""A collection of images, cut into parts that are always the same.

A part says where its images are and holds none of them, so that a source of any size can be walked through, and any
part be read again alone, in another process.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from models.errors import DataError

Kind = Literal["images", "parquet", "tar"]
SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "images": (".png", ".jpg", ".jpeg", ".webp"),
    "parquet": (".parquet",),
    "tar": (".tar",),
}

Content = bytes | Path | None
"""An image file's bytes, or where they are; None where a row has none."""


@dataclass(frozen=True)
class Part:
    """Images number `first` .. `first + length - 1` of a source.

    Args:
        files: where they are, relative to the source: image files, or one table or shard.
        start: in a table the row, in a shard the byte, at which they begin.
    """

    number: int
    first: int
    length: int
    files: tuple[str, ...]
    start: int = 0


@dataclass(frozen=True)
class Survey:
    """How many images and parts a source has; `digest` is of its files' names, sizes and times, and of the cuts."""

    images: int
    parts: int
    digest: str


class Source(Protocol):
    """Images in an order that depends on names alone."""

    @property
    def root(self) -> Path: ...

    def parts(self, size: int) -> Iterator[Part]:
        """All of it, in parts of at most `size` images."""
        ...

    def read(self, part: Part) -> Iterator[tuple[str, Content]]:
        """Each image's key, which no other image of the source has, and its content."""
        ...


def survey(source: Source, size: int) -> Survey:
    """Walk through the source without reading an image; raises DataError when there is none."""
    images = parts = 0
    digest = hashlib.sha256()
    for part in source.parts(size):
        images, parts = images + part.length, parts + 1
        digest.update(f"{part.number} {part.length} {part.start}\n".encode())
        for name in part.files:
            stat = (source.root / name).stat()
            digest.update(f"{name}\0{stat.st_size} {stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
    if not images:
        raise DataError(f"{source.root} holds no image; expected files {', '.join(sum(SUFFIXES.values(), ()))}")
    return Survey(images, parts, digest.hexdigest())


def readable(name: str) -> str:
    """A file's name as text that every output can hold; bytes of it that are no UTF-8 are escaped."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def root_of(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def files_of(path: Path, kind: Kind, asked: Kind | None) -> Iterator[tuple[str, Kind]]:
    """The files of `kind`; raises DataError at one of another kind, unless `kind` was asked for."""
    for name, found in walk(path, asked):
        if found != kind:
            raise DataError(f"{path} holds {kind} and also {name}; say with --kind which of them are meant")
        yield name, found


def walk(path: Path, only: Kind | None) -> Iterator[tuple[str, Kind]]:
    """Files that may hold images, relative to the folder, with their kinds, in an order of names alone."""
    kinds = {suffix: kind for kind, suffixes in SUFFIXES.items() for suffix in suffixes if only in (None, kind)}
    if path.is_file():
        if path.suffix.lower() in kinds:
            yield path.name, kinds[path.suffix.lower()]
        return
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for name in sorted(each for each in files if not each.startswith(".")):
            file = Path(folder, name)
            if (suffix := file.suffix.lower()) in kinds:
                yield file.relative_to(path).as_posix(), kinds[suffix]
