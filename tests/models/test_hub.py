"""Bundles through the Hugging Face hub's mixin, by way of a local folder: the hub itself is not in reach."""

from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from models.adapters.hub import HubBundle
from models.bundle import Bundle
from models.errors import BundleError, ConfigError
from models.pixels import from_uint8
from models.streams import ChainNoise, Stream
from tests.conftest import ZOO

DIGITS = ZOO / "digits-midrun"


def test_a_bundle_goes_there_and_back_whole(digits_bundle: Bundle, tmp_path: Path) -> None:
    HubBundle(DIGITS).save_pretrained(tmp_path / "defence")
    saved = {path.name for path in (tmp_path / "defence").iterdir()}
    assert saved == {path.name for path in DIGITS.iterdir()} | {"README.md"}
    loaded = HubBundle.from_pretrained(tmp_path / "defence", device="cpu").bundle
    assert loaded.digest == digits_bundle.digest
    x = from_uint8(torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8))
    answers = [
        bundle.defence(
            x, randn_like=ChainNoise([Stream((r,)) for r in range(bundle.defence.preset.replicates)]).sequence()
        )
        for bundle in (digits_bundle, loaded)
    ]
    assert torch.equal(*answers)


def test_the_card_is_the_bundles_own_under_what_the_hub_wants(tmp_path: Path) -> None:
    HubBundle(DIGITS).save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("limpid", "image-classification")
    assert card.text.strip() == (DIGITS / "MODEL_CARD.md").read_text().strip()
    assert str(tmp_path) not in "".join(path.read_text() for path in tmp_path.glob("*.[jm][sd]*"))


def test_what_was_changed_on_the_way_is_refused(tmp_path: Path) -> None:
    HubBundle(DIGITS).save_pretrained(tmp_path)
    weights = tmp_path / "energy.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleError, match="SHA-256"):
        HubBundle.from_pretrained(tmp_path)
    with pytest.raises(BundleError, match="unknown argument runtime"):
        HubBundle.from_pretrained(DIGITS, runtime="onnx")
    with pytest.raises(ConfigError, match="unknown device 'gpu'"):
        HubBundle.from_pretrained(DIGITS, device="gpu")
