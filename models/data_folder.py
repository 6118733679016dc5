"""Image files in folders: one folder a class, or all in one; and what every source of encoded images offers."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from models.data_decoding import Encoded
from models.errors import DataError

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp"))


class ImageSource(Protocol):
    """A split's images as encoded files, in a fixed order: `shards` runs of them, one after the other."""

    @property
    def name(self) -> str:
        """Dataset and split, for messages and for the cache."""
        ...

    @property
    def identity(self) -> tuple[object, ...]:
        """Changes when the images may have changed; plain values."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name a label; none when the source has no labels or no names for them."""
        ...

    @property
    def shards(self) -> int:
        """How many runs there are."""
        ...

    def __len__(self) -> int:
        """The number of images in all shards."""
        ...

    def read(self, shard: int, first: int) -> Iterator[Encoded]:
        """A shard's images from number `first` of them on."""
        ...


@dataclass(frozen=True)
class ImageFolder:
    """The PNG, JPEG and WebP files below `root`, in the order of their names.

    Its subfolders are the classes, in the order of their names; a folder of images alone has none.
    """

    name: str
    root: Path

    @cached_property
    def files(self) -> tuple[tuple[str, int], ...]:
        """(path below root, label) of every image; raises DataError when there are none, or a stray one."""
        paths = sorted(
            path.relative_to(self.root)
            for path in self.root.rglob("*")
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        )
        if not paths:
            raise DataError(f"{self.name}: {self.root} has no images; expected {', '.join(sorted(SUFFIXES))} files")
        loose = [path for path in paths if len(path.parts) == 1]
        if loose and len(loose) < len(paths):
            raise DataError(
                f"{self.name}: {self.root} has both images ({loose[0]}) and folders of images; "
                "expected one folder a class, or images alone"
            )
        names = sorted({path.parts[0] for path in paths if len(path.parts) > 1})
        labels = {name: label for label, name in enumerate(names)}
        return tuple((path.as_posix(), labels.get(path.parts[0], -1)) for path in paths)

    @property
    def identity(self) -> tuple[object, ...]:
        """Every file's path, size and time of change."""
        stats = ((path, (self.root / path).stat()) for path, _ in self.files)
        return ("files", *((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats))

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The subfolders."""
        return tuple(sorted({path.split("/")[0] for path, label in self.files if label >= 0}))

    @property
    def shards(self) -> int:
        """All files are one run."""
        return 1

    def __len__(self) -> int:
        return len(self.files)

    def read(self, shard: int, first: int) -> Iterator[Encoded]:
        """The files from number `first` on."""
        return (self[number] for number in range(first, len(self)))

    def __getitem__(self, number: int) -> Encoded:
        path, label = self.files[number]
        try:
            return Encoded((self.root / path).read_bytes(), label, str(self.root / path))
        except OSError as error:
            raise DataError(f"{self.root / path}: {error.strerror}") from error
