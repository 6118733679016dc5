import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from models.__main__ import main
from models.card_measurements import undominated
from tests.conftest import ZOO

BASELINE = Path(__file__).parents[2] / "attacks_eval" / "reports" / "digits-midrun" / "baseline.json"


def row(image_steps: int, clean: float, transfer: float) -> dict[str, Any]:
    return {"image_steps": image_steps, "clean": {"accuracy": clean}, "transfer": {"accuracy": transfer}}


def test_the_front_keeps_what_nothing_beats_in_everything() -> None:
    cheap, strong, worse, balanced = row(10, 0.9, 0.4), row(100, 0.8, 0.7), row(100, 0.8, 0.6), row(50, 0.85, 0.6)
    assert undominated([strong, worse, cheap, balanced]) == [cheap, balanced, strong]


def test_equal_rows_do_not_beat_each_other() -> None:
    assert len(undominated([row(10, 0.9, 0.4), row(10, 0.9, 0.4)])) == 2


def test_the_card_shows_other_weights_only_on_the_same_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, others = tmp_path / "bundle", tmp_path / "others.json"
    shutil.copytree(ZOO / "digits-midrun", bundle)
    now = json.loads(BASELINE.read_text())
    row = now["presets"]["balanced"]
    old = {"quick": row | {"transfer": row["transfer"] | {"accuracy": 0.125}}}
    others.write_text(json.dumps(now | {"weights": "f" * 64, "presets": old}))
    command = ["measured", str(bundle), str(BASELINE), "--beside", f"half the training={others}"]
    assert main(command) == 0
    card = (bundle / "MODEL_CARD.md").read_text()
    section = card.split("## Beside other weights")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if "quick" in line or "these weights, balanced" in line]
    assert [line.split(" | ")[0] for line in lines] == ["| these weights, balanced", "| half the training, quick"]
    assert f"| {100 * row['transfer']['accuracy']:.1f} % [" in lines[0]
    assert "| 12.5 % [" in lines[1]

    others.write_text(json.dumps(now | {"weights": "f" * 64, "first": now["first"] + 1}))
    assert main(command) == 2
    assert "is not a baseline of the images and attack of this bundle's own baseline" in capsys.readouterr().err
    assert (bundle / "MODEL_CARD.md").read_text() == card
    assert main(["measured", str(bundle), str(BASELINE), "--beside", str(others)]) == 2
    assert "expected WHAT=FILE" in capsys.readouterr().err
