"""The feature networks: real weights on real images, and Inception as far as it can be checked without its weights."""

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.data import ImageDataset
from models.errors import CheckpointError, DataError, NetworkError
from models.evaluation.feature_cache import cached_features
from models.evaluation.features import FeatureNetwork, load_efflite0, load_inception
from models.evaluation.fidelity import score
from models.evaluation.inception import Inception, resize_tf1

CPU = torch.device("cpu")
COUNT = 100


@pytest.fixture(scope="module")
def efflite0() -> FeatureNetwork:
    return load_efflite0(CPU)


@pytest.fixture(scope="module")
def test_features(efflite0: FeatureNetwork, cifar10_test: ImageDataset) -> Tensor:
    return efflite0.features(cifar10_test.images[: 2 * COUNT])


def test_noisy_images_score_worse_than_clean_ones(
    efflite0: FeatureNetwork, cifar10_test: ImageDataset, test_features: Tensor
) -> None:
    """Noise of 0.05 (of [0, 1]) on the images whose own score is the floor."""
    images = cifar10_test.images[COUNT : 2 * COUNT]
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    noisy = efflite0.features((images + 255 * 0.05 * noise).round().clamp(0, 255).byte())
    reference, clean = test_features.split(COUNT)
    frechet, kid, _, recall = score(efflite0.name, efflite0.frechet_name, noisy, reference, clean)
    assert (frechet.name, kid.name) == ("FD-EffLite0", "KID-EffLite0")
    assert frechet.samples.value > 1.03 * frechet.floor.value
    assert kid.samples.standard_error is not None
    assert kid.floor.standard_error is not None
    assert kid.samples.value > 4 * kid.samples.standard_error
    assert abs(kid.floor.value) < 3 * kid.floor.standard_error
    assert recall.samples.value < 0.6 * recall.floor.value


def test_features_tell_the_classes_apart(test_features: Tensor, cifar10_test: ImageDataset) -> None:
    """A wrong preprocessing or wrong weights would leave little: nearest class mean, leaving each image out."""
    labels = cifar10_test.labels[: len(test_features)]
    members = torch.nn.functional.one_hot(labels, 10).float()
    right = 0
    for number, features in enumerate(test_features):
        rest = members.clone()
        rest[number] = 0
        means = rest.T @ test_features / rest.sum(0)[:, None]
        right += int((means - features).norm(dim=1).argmin() == labels[number])
    assert right / len(labels) > 0.55


def test_features_are_the_same_again_and_alone(
    efflite0: FeatureNetwork, cifar10_test: ImageDataset, test_features: Tensor
) -> None:
    images = cifar10_test.images[:8]
    again = efflite0.features(images)
    assert torch.equal(again, efflite0.features(images))
    assert torch.allclose(again, test_features[:8], atol=1e-4)
    assert torch.allclose(again[7:8], efflite0.features(images[7:8]), atol=1e-4)


def test_grey_images_are_repeated(efflite0: FeatureNetwork, cifar10_test: ImageDataset) -> None:
    grey = cifar10_test.images[:2, :1]
    assert torch.equal(efflite0.features(grey), efflite0.features(grey.repeat(1, 3, 1, 1)))


def test_images_that_are_not_bytes_are_refused(efflite0: FeatureNetwork) -> None:
    for images in (torch.zeros(2, 3, 8, 8), torch.zeros(2, 2, 8, 8, dtype=torch.uint8)):
        with pytest.raises(DataError, match=r"expected uint8 images \[N, 1 or 3, H, W\], got"):
            efflite0.features(images)


class MeanColours(nn.Module):
    """Features that are known: the mean of each channel; a black image has none."""

    def forward(self, pixels: Tensor) -> Tensor:
        means = pixels.mean(dim=(2, 3))
        return torch.where(means > 0, means, float("nan"))


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureNetwork:
    monkeypatch.setenv("LIMPID_CACHE", str(tmp_path))
    return FeatureNetwork("Toy", "mean colours", MeanColours(), CPU)


def pictures(count: int) -> Tensor:
    return torch.randint(1, 256, (count, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_features_that_are_not_finite_are_named(toy: FeatureNetwork) -> None:
    images = pictures(250)
    images[130] = 0
    with pytest.raises(DataError, match="Toy: the features of image 130 of 250 are not finite"):
        toy.features(images)


def test_the_cache_holds_what_was_computed(toy: FeatureNetwork, tmp_path: Path) -> None:
    """An interrupted run keeps its whole parts, and what it finds later is what the network gives."""
    images = pictures(1500)
    first = cached_features(toy, images[:1000])
    files = list((tmp_path / "features").iterdir())
    assert len(files) == 1
    before = files[0].stat().st_mtime_ns
    advanced: list[int] = []
    both = cached_features(toy, images, advanced.append)
    assert advanced == [1000, *[100] * 5], "the first thousand at once, from the cache"
    assert files[0].stat().st_mtime_ns == before
    assert torch.equal(both, toy.features(images))
    assert torch.equal(both[:1000], first)


def test_the_cache_knows_images_and_networks_apart(toy: FeatureNetwork, tmp_path: Path) -> None:
    images = pictures(30)
    other = FeatureNetwork("Toy", "mean colours, other weights", toy.module, CPU)
    for network, of in ((toy, images), (other, images), (toy, images.flip(0)), (toy, images.reshape(30, 3, 2, 8))):
        assert torch.equal(cached_features(network, of), network.features(of))
    assert len(list((tmp_path / "features").iterdir())) == 4


def test_a_damaged_cache_is_named_not_used(toy: FeatureNetwork, tmp_path: Path) -> None:
    cached_features(toy, pictures(30))
    (path,) = (tmp_path / "features").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=f"{path.name} does not hold features.*delete it"):
        cached_features(toy, pictures(30))


def test_resizing_is_tensorflow_1s() -> None:
    """Two pixels to four: at 0, 0.5, 1 and 1.5, the last past the end; PyTorch looks at -0.25, 0.25, 0.75 and 1.25."""
    image = torch.tensor([[0.0, 10.0], [20.0, 50.0]])[None, None]
    expected = [[0.0, 5.0, 10.0, 10.0], [10.0, 20.0, 30.0, 30.0], [20.0, 35.0, 50.0, 50.0], [20.0, 35.0, 50.0, 50.0]]
    assert resize_tf1(image, 4)[0, 0].tolist() == expected
    down = resize_tf1(torch.arange(12.0).view(1, 1, 1, 12).expand(1, 2, 3, 12), 3)
    assert down[0, 1].tolist() == [[0.0, 4.0, 8.0]] * 3, "every fourth, without averaging"


@pytest.fixture(scope="module")
def inception() -> Inception:
    torch.manual_seed(0)
    module = Inception().eval()
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return module


def test_inception_has_the_files_parameters(inception: Inception) -> None:
    """pytorch-fid's network has 23,850,960 parameters with its classifier of 1008 classes, under these names."""
    assert sum(p.numel() for p in inception.parameters()) + 2048 * 1008 + 1008 == 23_850_960
    shapes = {name: list(p.shape) for name, p in inception.named_parameters()}
    assert shapes["Conv2d_1a_3x3.conv.weight"] == [32, 3, 3, 3]
    assert shapes["Mixed_5b.branch1x1.bn.bias"] == [64]
    assert shapes["Mixed_5d.branch_pool.conv.weight"] == [64, 288, 1, 1]
    assert shapes["Mixed_6a.branch3x3.conv.weight"] == [384, 288, 3, 3]
    assert shapes["Mixed_6c.branch7x7dbl_4.conv.weight"] == [160, 160, 7, 1]
    assert shapes["Mixed_7a.branch7x7x3_4.conv.weight"] == [192, 192, 3, 3]
    assert shapes["Mixed_7c.branch3x3dbl_3b.conv.weight"] == [384, 384, 3, 1]
    assert not [name for name in shapes if name.startswith(("Mixed_6a.branch_pool", "Mixed_7a.branch_pool"))]


def test_inceptions_pools_are_the_graphs(inception: Inception) -> None:
    """The average of a constant is that constant up to the border; the last block alone takes the maximum."""
    for block, size in ((inception.Mixed_5b, 192), (inception.Mixed_6b, 768), (inception.Mixed_7b, 1280)):
        pooled = block(torch.ones(1, size, 8, 8))[:, -block.branch_pool.conv.out_channels :]
        assert torch.allclose(pooled, pooled[:, :, :1, :1].expand_as(pooled), atol=1e-5)
    spike = torch.zeros(1, 2048, 8, 8)
    spike[:, :, 3, 3] = 1.0
    pooled = inception.Mixed_7c(spike)[0, -192:]
    reached = (pooled - pooled[:, :1, :1]).abs().sum(0) > 1e-6
    assert reached.sum() == 9
    around = pooled[:, 2:5, 2:5]
    assert torch.allclose(around, pooled[:, 3:4, 3:4].expand_as(around), atol=1e-5), "the whole spike, not a ninth"


@pytest.fixture(scope="module")
def inception_file(inception: Inception, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, in a file made as pytorch-fid's is."""
    classifier = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save({**inception.state_dict(), **classifier}, path)
    return path


def test_another_inception_is_not_called_fid(inception_file: Path, inception: Inception) -> None:
    digest = hashlib.sha256(inception_file.read_bytes()).hexdigest()
    network = load_inception(inception_file, digest.upper(), CPU)
    assert network.frechet_name == f"FD-Inception-{digest[:8]}"
    assert FeatureNetwork("Inception", "", inception, CPU).frechet_name == "FID"
    loaded = network.module.state_dict()
    assert loaded.keys() == inception.state_dict().keys()
    assert all(torch.equal(loaded[name], value) for name, value in inception.state_dict().items())
    features = network.features(pictures(1))
    assert features.shape == (1, 2048)
    assert features.std() > 0


def test_weights_of_another_digest_or_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="absent.pth can not be read: No such file"):
        load_inception(tmp_path / "absent.pth", "0" * 64, CPU)
    other = tmp_path / "other.pth"
    torch.save(nn.Linear(2, 2).state_dict(), other)
    with pytest.raises(NetworkError, match=r"other.pth has SHA-256 [0-9a-f]{64}, expected 6726825d"):
        load_inception(other, "6726825d" + "0" * 56, CPU)
    with pytest.raises(NetworkError, match="does not hold the Inception network of FID.*Conv2d_1a_3x3"):
        load_inception(other, hashlib.sha256(other.read_bytes()).hexdigest(), CPU)
    other.write_bytes(b"not weights")
    with pytest.raises(NetworkError, match="does not hold weights"):
        load_inception(other, hashlib.sha256(other.read_bytes()).hexdigest(), CPU)
