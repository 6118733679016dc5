"""Which images of a folder on this machine belong to a split."""

from pathlib import Path

from models.data_folder import ImageFolder
from models.data_tables import Table, parquet_table
from models.errors import DataError

SPLIT_NAMES = {"train": ("train",), "test": ("test", "validation", "valid", "val")}
"""What folders and parquet files call the splits, the usual name first."""


def local_source(name: str, folder: Path, split: str, names: tuple[str, ...]) -> ImageFolder | Table:
    """The images of the first of the split's `names` that the folder knows; one that names no split is all training.

    Parquet files anywhere below the folder are named SPLIT-....parquet, or lie in a folder SPLIT; images lie in a
    subfolder SPLIT. Raises DataError when the split is not there, or when it cannot be told splits from classes.
    """
    if not folder.is_dir():
        raise DataError(f"{name}: {folder} is not a folder")
    tables = sorted(folder.rglob("*.parquet"))
    if tables:
        parts = {known: [path for path in tables if known in _called(path)] for known in _all_names()}
    else:
        parts = {known: [folder / known] for known in _split_folders(name, folder)}
    found = next((parts[known] for known in names if parts.get(known)), None)
    if found is None:
        if split == "test" or any(parts.values()):
            raise DataError(f"{name}: no {split} images in {folder}; expected a folder or parquet files {names[0]}")
        found = tables or [folder]
    return parquet_table(name, found) if tables else ImageFolder(name, found[0])


def _all_names() -> set[str]:
    return {known for names in SPLIT_NAMES.values() for known in names}


def _called(table: Path) -> tuple[str, str]:
    """What may name a table's split: train-00000-of-00004.parquet, train/0000.parquet."""
    return table.stem.split("-")[0], table.parent.name


def _split_folders(name: str, folder: Path) -> set[str]:
    found = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
    splits, others = found & _all_names(), found - _all_names()
    if splits and others:
        raise DataError(
            f"{name}: {folder} has folders of splits ({', '.join(sorted(splits))}) and others "
            f"({min(others)}); expected splits alone, or classes alone"
        )
    return splits
