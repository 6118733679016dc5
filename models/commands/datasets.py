"""Datasets, fetched ahead of time."""

import argparse
from pathlib import Path

from models.console import console, positive_int
from models.data import DATASETS, load_dataset
from models.data_local import SPLIT_NAMES
from models.data_sources import SOURCES, cache_folder, fetch, locate
from models.errors import DataError


def data(options: argparse.Namespace) -> None:
    """Fetch a dataset into the cache, unless it is there and whole; the larger ones are decoded on the way."""
    if options.name in SOURCES and options.folder is None:
        try:
            folder = locate(SOURCES[options.name])
        except DataError as error:
            console.print(f"{error}; fetching it again")
            folder = fetch(SOURCES[options.name])
        console.print(f"{options.name}: verified, in {folder} (cache {cache_folder()}; move it with LIMPID_CACHE)")
        return
    for split in options.split or ("train", "test"):
        found = load_dataset(options.name, split, options.folder, options.side, options.channels)
        described = f"{len(found):,} images {found.shape} in {len(found.class_names)} classes"
        console.print(f"{options.name} {split}: {described} (cache {cache_folder()})")


def data_arguments(parser: argparse.ArgumentParser) -> None:
    """What `data` reads."""
    parser.add_argument("action", choices=("fetch",))
    parser.add_argument("name", choices=DATASETS)
    parser.add_argument("--folder", type=Path, help="a local copy: the dataset's own files, images, or parquet files")
    parser.add_argument(
        "--side", type=positive_int, help="for `folder` and `textures`: of the resized images, in pixels"
    )
    parser.add_argument("--channels", type=int, choices=(1, 3), help="likewise (default 3)")
    parser.add_argument("--split", action="append", choices=tuple(SPLIT_NAMES), help="default: train and test")
