"""Sets of images that are no data: one preparation for all, so that nothing but their content tells them apart."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.data import ImageDataset, load_dataset
from models.data_decoding import decode_square
from models.errors import DataError
from models.evaluation.detection import SCORES, respond, scores_of
from models.evaluation.detection_run import DATA, OTHERS, collect
from models.evaluation.detection_sets import MADE, Shape, fit
from models.evaluation.detection_statistics import detection
from models.image_files import encode_png, write_png
from models.pixels import from_uint8

COLOUR, GREY = (3, 32, 32), (1, 8, 8)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cifar10_test: ImageDataset) -> None:
    """Decoded images go to a folder of the test's own; the downloaded ones are read before."""
    monkeypatch.setenv("LIMPID_CACHE", str(tmp_path / "cache"))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(count: int, shape: Shape) -> Tensor:
    return torch.randint(256, (count, *shape), generator=seeded(9), dtype=torch.uint8)


def write_split(root: Path, images: Tensor, split: str = "test") -> Path:
    (root / split).mkdir(parents=True)
    for number, image in enumerate(images):
        write_png(root / split / f"{number:04}.png", image)
    return root


def textured(x: Tensor) -> Tensor:
    """An energy that any change of scale, level, sharpness or noise moves."""
    edges = (x[..., 1:] - x[..., :-1]).square().mean((1, 2, 3))
    return edges + x.square().mean((1, 2, 3)) + (127.5 * x).sin().square().mean((1, 2, 3))


def test_the_data_itself_as_another_set_can_not_be_told_apart(tmp_path: Path, cifar10_test: ImageDataset) -> None:
    """CIFAR-10's own test images, brought as files of another dataset: the same pixels, the same scores, AUROC 1/2."""
    scored = cifar10_test.images[:60]
    folder = write_split(tmp_path / "files", scored)
    for name in ("svhn", "cifar100", "textures"):
        sets = collect(cifar10_test.images[:120], 0, 60, {name: folder}, COLOUR, seed=3)
        assert sets.images[name].dtype == torch.uint8
        order = [int(row) for row in (sets.images[name][:, None] == scored).flatten(2).all(2).int().argmax(1)]
        assert sorted(order) == list(range(60))
        assert torch.equal(sets.images[name], scored[order])
        responses = [respond(textured, from_uint8(sets.images[each]), "float32") for each in (DATA, name)]
        usual, unusual = (scores_of(response, mean=1.0) for response in responses)
        for score in SCORES:
            assert detection(usual[score], unusual[score]).auroc.value == pytest.approx(0.5, abs=1e-9)


def test_the_data_goes_through_the_same_resizing_as_other_sets(cifar10_test: ImageDataset) -> None:
    """A model of 8x8 grey images: CIFAR-10 as its data and as a set it has not learned are prepared alike."""
    test = cifar10_test.images[:40]
    as_data = collect(test, 0, 20, {}, GREY, seed=0).images[DATA]
    assert torch.equal(as_data, fit(test[:20], GREY, seeded(5)))
    # Files are made grey and resized by Pillow as they are decoded: the same, but for rounding.
    decoded = [decode_square(encode_png(image), "test", 8, 1) for image in test[:20]]
    assert (as_data.int() - torch.from_numpy(np.stack(decoded)).int()).abs().max() <= 2


def test_an_image_of_the_models_shape_is_left_as_it_is() -> None:
    for shape in (COLOUR, GREY):
        images = random_images(5, shape)
        assert torch.equal(fit(images, shape, seeded()), images)


def test_larger_images_are_resized_whole_not_cut_at_a_corner(tmp_path: Path) -> None:
    """128x128 with a bright lower right quarter, beside margins that the middle square leaves out."""
    picture = torch.zeros(1, 3, 128, 160, dtype=torch.uint8)
    picture[:, :, 64:, 80:] = 200
    picture[..., :16] = picture[..., 144:] = 255
    folder = write_split(tmp_path / "textures", picture)
    loaded = load_dataset("textures", "test", folder, 32, 3)
    image = fit(loaded.images, COLOUR, seeded())[0]
    quarters = image.unflatten(1, (2, 16)).unflatten(3, (2, 16)).float().mean((0, 2, 4))
    assert quarters.tolist() == [pytest.approx([0, 0], abs=4), pytest.approx([0, 200], abs=4)]
    assert not image[:, :15, :15].any()


def test_datasets_are_read_from_their_test_split(tmp_path: Path) -> None:
    folder = write_split(tmp_path / "svhn", torch.full((3, 3, 32, 32), 10, dtype=torch.uint8), "train")
    with pytest.raises(DataError, match="no test images"):
        load_dataset("svhn", "test", folder)
    write_split(folder, torch.full((2, 3, 32, 32), 20, dtype=torch.uint8))
    sets = collect(random_images(4, COLOUR), 0, 2, {"svhn": folder}, COLOUR, seed=0)
    assert sets.images["svhn"].unique().tolist() == [20]


def test_grey_images_become_two_coloured() -> None:
    """Every pixel on the line between two colours, those of black and of white, which differ from image to image."""
    images = random_images(30, (1, 8, 8))
    images[:, 0, 0, 0], images[:, 0, 0, 1] = 0, 255
    coloured = fit(images, (3, 8, 8), seeded()).float()
    paper, ink = coloured[:, :, :1, :1], coloured[:, :, :1, 1:2]
    assert (coloured - (paper + (ink - paper) * images / 255)).abs().max() <= 0.5
    assert len({tuple(each.flatten().tolist()) for each in paper}) > 25
    assert (ink - paper).abs().mean() > 50


def test_made_sets_are_what_they_say() -> None:
    data = random_images(200, (3, 16, 16))
    data[..., 1:] = data[..., :1]  # rows of one colour
    made = {name: make(data, seeded(1)) for name, make in MADE.items()}
    assert {(each.dtype, each.shape) for each in made.values()} == {(torch.uint8, data.shape)}
    assert (made["constant"] == made["constant"][..., :1, :1]).all()
    assert made["constant"].float().mean() == pytest.approx(127.5, abs=10)
    counts = torch.bincount(made["uniform"].flatten(), minlength=256)
    assert counts.min() > 0.7 * counts.float().mean()
    ends = ((made["gaussian"] == 0) | (made["gaussian"] == 255)).double().mean()
    assert float(ends) == pytest.approx(0.0460, abs=0.004)  # 2 Phi(-127 / 63.75): clipped, or rounded to the ends
    assert made["gaussian"].float().std() == pytest.approx(0.97 * 63.75, rel=0.02)
    flat = data.flatten(2)
    assert torch.equal(made["permuted"].flatten(2).sort(-1).values, flat.sort(-1).values)
    assert (made["permuted"] != data).float().mean() > 0.8
    blurred = made["blurred"].float()
    assert (blurred.mean((1, 2, 3)) - data.float().mean((1, 2, 3))).abs().max() < 12
    assert blurred.std() < 0.7 * data.float().std()
    assert (blurred == blurred[..., :1]).float().mean() > 0.99, "rows of one colour stay so up to the edges"


def test_an_interpolation_is_the_mean_of_two_images_of_the_data() -> None:
    data = torch.tensor([0, 1, 10, 100], dtype=torch.uint8).view(4, 1, 1, 1)
    means = {0: (0, 1), 5: (0, 10), 50: (0, 100), 6: (1, 10), 55: (10, 100)}
    found = MADE["interpolation"](data, seeded()).flatten().tolist()
    assert len(found) == 4
    assert set(found) <= {*means, 50, 51}
    assert not set(found) & {1, 10, 100}, "never an image with itself"


def test_scored_images_make_nothing(cifar10_test: ImageDataset) -> None:
    """The mean energy and the made sets come from images that are not scored."""
    names = dict.fromkeys(MADE)
    first = collect(cifar10_test.images[:40], 0, 20, names, COLOUR, seed=0)
    changed = cifar10_test.images[:40].clone()
    changed[:20] = 0
    second = collect(changed, 0, 20, names, COLOUR, seed=0)
    assert torch.equal(first.images[OTHERS], cifar10_test.images[20:40])
    for name in (OTHERS, *MADE):
        assert torch.equal(first.images[name], second.images[name])
    alone = collect(cifar10_test.images[:40], 0, 20, {"uniform": None}, COLOUR, seed=0)
    assert torch.equal(alone.images["uniform"], first.images["uniform"])
    with pytest.raises(DataError, match="21 images from number 0, and as many others .* more than the 40"):
        collect(cifar10_test.images[:40], 0, 21, names, COLOUR, seed=0)


def test_a_dataset_without_a_source_is_not_run_and_a_wrong_folder_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    images = random_images(4, COLOUR)
    sets = collect(images, 0, 2, {"svhn": None, "uniform": None}, COLOUR, seed=0)
    assert sets.unusual == ("uniform",)
    assert "ufldl-stanford/svhn" in sets.not_run["svhn"]
    with pytest.raises(DataError, match="nowhere is not a folder"):
        collect(images, 0, 2, {"svhn": tmp_path / "nowhere"}, COLOUR, seed=0)
