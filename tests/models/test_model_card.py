from typing import Any

from models.model_card import undominated


def row(image_steps: int, clean: float, transfer: float) -> dict[str, Any]:
    return {"image_steps": image_steps, "clean": {"accuracy": clean}, "transfer": {"accuracy": transfer}}


def test_the_front_keeps_what_nothing_beats_in_everything() -> None:
    cheap, strong, worse, balanced = row(10, 0.9, 0.4), row(100, 0.8, 0.7), row(100, 0.8, 0.6), row(50, 0.85, 0.6)
    assert undominated([strong, worse, cheap, balanced]) == [cheap, balanced, strong]


def test_equal_rows_do_not_beat_each_other() -> None:
    assert len(undominated([row(10, 0.9, 0.4), row(10, 0.9, 0.4)])) == 2
