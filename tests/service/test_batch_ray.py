"""python -m service.batch --ray: the same rows as one machine writes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.data import ImageDataset
from models.image_files import write_png
from service.batch.__main__ import main
from tests.ray_cluster import local_cluster
from tests.server_process import DIGITS

pytest.importorskip("ray", reason="needs Ray: make test-ray")
# Ray's own modules use what pydantic has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with local_cluster(tmp_path_factory.mktemp("ray"), "--include-dashboard=false") as running:
        yield running.address


def test_a_cluster_writes_what_one_machine_does_and_goes_on_with_it(
    cluster: str, digits_test: ImageDataset, tmp_path: Path
) -> None:
    for number in range(12):
        write_png(tmp_path / f"{number}.png", digits_test.images[number])
    images = tmp_path / "images"
    images.mkdir()
    for path in tmp_path.glob("*.png"):
        path.rename(images / path.name)
    (images / "bad.png").write_bytes(b"")
    command = [str(images), "--bundle", str(DIGITS), "--seed", "1", "--part-size", "3"]
    assert main([command[0], str(tmp_path / "here"), *command[1:]]) == 0
    here, there = tmp_path / "here", tmp_path / "there"
    assert main([command[0], str(there), *command[1:], "--ray", cluster]) == 0
    assert _parts(here) == _parts(there)
    assert sum(json.loads(line)["status"] == 200 for text in _parts(there) for line in text.splitlines()) == 12
    for number in (1, 3):
        (there / f"part-{number:06d}.jsonl").unlink()
    assert main([command[0], str(there), *command[1:], "--ray", cluster]) == 0
    assert _parts(here) == _parts(there)


def _parts(folder: Path) -> list[str]:
    return [path.read_text() for path in sorted(folder.glob("part-*.jsonl"))]
