"""Where purified images go: settled before anything is computed, so that no work is lost to a name."""

import os
from collections.abc import Sequence
from pathlib import Path

from models.errors import ConfigError, DataError
from models.files import replace_file


def output_paths(files: Sequence[Path], out: str, overwrite: bool) -> dict[Path, Path]:
    """Each file's PNG: `out` itself for one file, or in the folder `out` under the file's name.

    Raises:
        ConfigError: a name that does not end in .png, one that two files would have, or, without `overwrite`, one that
            is there already, be it an input or not.
    """
    folder = Path(out)
    if len(files) > 1 or folder.is_dir() or out.endswith(os.sep):
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"-o {out}: expected a folder for {len(files)} files, but it is a file")
        if len(files) > 1 and folder.suffix.lower() == ".png" and not folder.exists():
            raise ConfigError(f"-o {out}: expected a folder for {len(files)} files, not the name of one")
        paths = {file: folder / f"{file.stem}.png" for file in files}
    else:
        paths = {files[0]: folder}
    taken: dict[Path, Path] = {}
    for file in files:  # of which one may be named twice
        path = paths[file]
        if path.suffix.lower() != ".png":
            raise ConfigError(f"-o {path}: expected a name that ends in .png, the one format that is written")
        if path in taken:
            raise ConfigError(f"{taken[path]} and {file} would both be written to {path}")
        if path.exists() and not overwrite:
            raise ConfigError(f"{path} exists; choose another -o, or replace it with --overwrite")
        taken[path] = file
    return paths


def write(path: Path, png: bytes) -> None:
    """Write the file whole or not at all; raises DataError when it can not be written."""
    try:
        replace_file(path, png)
    except OSError as error:
        raise DataError(f"{path} can not be written: {error.strerror}") from error
