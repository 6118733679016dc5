"""The README's numbers are the measured ones, and what it names exists; its commands are parsed in tests/docs."""

import re
from pathlib import Path

import pytest

from models.bundle import read_manifest
from models.model_card import render_model_card
from tests.conftest import ZOO

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CARDS = sorted(ZOO.iterdir())


@pytest.mark.parametrize("bundle", CARDS, ids=lambda path: path.name)
def test_model_cards_are_what_their_manifests_say(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert (bundle / "MODEL_CARD.md").read_text() == render_model_card(manifest)
    for result in manifest.measured.values():
        assert manifest.answers(result), "measured on another bundle than this one"
    assert all(each["weights"] != manifest.weights_digest for each in manifest.beside.values())


def test_accuracies_in_the_readme_stand_in_the_model_cards() -> None:
    """Each table's rows in one bundle's card: the default one's first, then the faithful one's."""
    tables = [block.splitlines()[2:] for block in re.findall(r"(?:^\|.*\n)+", README, flags=re.M)]
    measured = [rows for rows in tables if re.search(r"\d %", rows[0])]
    assert len(measured) == 2
    for rows, bundle in zip(measured, ("cifar10-robust", "cifar10-midrun"), strict=True):
        card = (ZOO / bundle / "MODEL_CARD.md").read_text()
        assert len(rows) >= 4
        assert all(row in card for row in rows)


def test_the_certified_shares_in_the_readme_are_the_card_s() -> None:
    card = (ZOO / "cifar10-certified" / "MODEL_CARD.md").read_text()
    for radius in ("0.25", "0.5"):
        share = re.search(rf"(\d+\.\d % \[[\d., ]+\]) at L2 {radius}\b", README)
        assert share is not None
        assert f"L2 {float(radius):.3f}: {share[1]}" in card


def test_the_bad_numbers_come_first() -> None:
    """The worst case stands before every other accuracy, in the README as in the cards."""
    for text in (README, *((path / "MODEL_CARD.md").read_text() for path in CARDS)):
        first = re.search(r"^\| .*?(\d+\.\d) %", text, flags=re.M)
        assert first is not None
        assert "worst case" in first.group(0)


def test_make_targets_in_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    named = set(re.findall(r"make ([a-z-]+)", README))
    assert {"serve", "test", "docs", "bench"} <= named <= targets


def test_files_that_the_readme_sends_exist() -> None:
    paths = re.findall(r"image=@(\S+)", README)
    assert paths
    assert all((ROOT / path).is_file() for path in paths)
