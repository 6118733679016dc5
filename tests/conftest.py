"""Shared fixtures: real datasets and the bundles that ship."""

from pathlib import Path

import pytest
import torch

from models.bundle import Bundle, load_bundle
from models.data import ImageDataset, load_dataset
from models.errors import DataError

ZOO = Path(__file__).parent.parent / "models" / "zoo"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", type=Path, default=Path("build/screenshots"), help="where the console's go")


@pytest.fixture(scope="session")
def cifar10_test() -> ImageDataset:
    """The 10,000 test images, fetched once; skipped only where no source answers."""
    try:
        return load_dataset("cifar10", "test")
    except DataError as error:
        if "no source answered" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def digits_test() -> ImageDataset:
    return load_dataset("digits", "test")


@pytest.fixture(scope="session")
def digits_bundle() -> Bundle:
    return load_bundle(ZOO / "digits-midrun", torch.device("cpu"))


@pytest.fixture(scope="session")
def cifar10_bundle() -> Bundle:
    return load_bundle(ZOO / "cifar10-midrun", torch.device("cpu"))
