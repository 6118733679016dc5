import pytest
import torch

from models import pixels


def test_every_level_survives_the_round_trip() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    floats = pixels.from_uint8(levels)
    assert floats[0] == -1.0
    assert floats[255] == 1.0
    assert torch.equal(pixels.to_uint8(floats), levels)


def test_to_uint8_rounds_to_the_nearest_level_and_clips() -> None:
    halfway = torch.tensor([-5.0, -1.0 + 2 * 0.4 / 255, -1.0 + 2 * 0.6 / 255, 5.0])
    assert pixels.to_uint8(halfway).tolist() == [0, 0, 1, 255]


def test_from_uint8_refuses_floats() -> None:
    with pytest.raises(TypeError, match="float32"):
        pixels.from_uint8(torch.zeros(2))


@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0])
def test_from_unit_refuses_values_outside_the_unit_range(value: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        pixels.from_unit(torch.tensor([0.5, value]))


def test_unit_and_signed_ranges_are_inverse() -> None:
    unit = torch.rand(5)
    assert torch.allclose(pixels.to_unit(pixels.from_unit(unit)), unit, atol=1e-7)


def test_normalisation_matches_its_formula_per_channel() -> None:
    normalisation = pixels.Normalisation(mean=(10.0, 20.0), std=(2.0, 4.0), scale=255.0)
    image = pixels.from_uint8(torch.tensor([30, 40], dtype=torch.uint8)).view(1, 2, 1, 1)
    assert torch.allclose(normalisation(image).flatten(), torch.tensor([10.0, 5.0]), atol=1e-4)


def test_distances_are_in_the_units_they_promise() -> None:
    a = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    b = a.clone()
    b[0, 0, 0, 0], b[0, 1, 1, 1] = 3, 4
    a, b = pixels.from_uint8(a), pixels.from_uint8(b)
    assert pixels.distance_linf(a, b).item() == pytest.approx(4.0, abs=1e-4)
    assert pixels.distance_l2(a, b).item() == pytest.approx(5.0 / 255.0, rel=1e-5)
