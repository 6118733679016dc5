"""An evaluation spread over a Ray cluster: the same verdicts as in one process."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attacks_eval.__main__ import main
from tests.conftest import ZOO
from tests.ray_cluster import local_cluster

pytest.importorskip("ray", reason="needs Ray: make test-ray")
# Ray's own modules use what pydantic has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

OPTIONS = ["run", "--bundle", str(ZOO / "digits-midrun"), "--preset", "smoke", "--images", "4", "--budget", "60"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with local_cluster(tmp_path_factory.mktemp("ray"), "--include-dashboard=false") as running:
        yield running.address


def test_a_cluster_changes_no_verdict_and_no_pixel(cluster: str, tmp_path: Path) -> None:
    assert main([*OPTIONS, "--out", str(tmp_path / "here")]) == 0
    assert main([*OPTIONS, "--out", str(tmp_path / "there"), "--ray", cluster]) == 0
    here, there = (_verdicts(tmp_path / name) for name in ("here", "there"))
    assert any(key[0] == "attack" for key in here)
    assert here == there
    with np.load(tmp_path / "here" / "adv.npz") as a, np.load(tmp_path / "there" / "adv.npz") as b:
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])


def test_workers_beside_a_cluster_are_refused(cluster: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*OPTIONS, "--out", str(tmp_path), "--workers", "2", "--ray", cluster]
    assert main(arguments) == 2
    assert "a Ray cluster has its own" in capsys.readouterr().err


def test_a_cluster_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*OPTIONS, "--out", str(tmp_path), "--ray", "127.0.0.1:1"]) == 2
    assert "no Ray cluster answers at 127.0.0.1:1" in capsys.readouterr().err


def _verdicts(folder: Path) -> dict[tuple[str | int, ...], Any]:
    """What the ledger holds, but for costs, where the images lie in their file, and losses that a search notes for its
    diagnosis: those depend in the last digit on the searches beside it."""
    entries = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()[1:]]
    found = {}
    for entry in entries:
        outcome = {k: v for k, v in entry.get("outcome", {}).items() if k not in ("early_loss", "late_loss")}
        rest = {k: v for k, v in entry.items() if k not in ("key", "spent", "image_at", "outcome")}
        found[tuple(entry["key"])] = (outcome, rest)
    return {key: value for key, value in found.items() if key[0] not in ("session", "gradients")}
