"""The Python that the documentation prints does what its page says."""

from pathlib import Path
from typing import Any

import pytest
import torch

from attacks_eval.evaluation import Evaluation
from models.bundle import load_bundle, read_manifest
from models.data import load_dataset
from models.image_files import write_png
from models.networks.onnx_classifier import OnnxClassifier
from tests.docs.pages import ROOT, blocks
from tests.server_process import DIGITS, serve_bundle


def run(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is defined after all Python of a page has run, as a reader's in the repository's folder would."""
    for name in ("models", "tests"):
        (folder / name).symlink_to(ROOT / name)
    monkeypatch.chdir(folder)
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    for text in blocks(ROOT / "docs" / page, "python"):
        exec(compile(text, page, "exec"), names)
    return names


def test_quick_start_classifies_and_purifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = run("quick-start.md", tmp_path, monkeypatch)
    assert capsys.readouterr().out.startswith("cat ")
    natural = load_bundle(ROOT / "models" / "zoo" / "cifar10-midrun", torch.device("cpu")).defence
    assert int(natural.classify(names["image"]).argmax()) != 3, "the classifier that the picture was made for is fooled"
    assert (tmp_path / "purified.png").stat().st_size > 1000


def test_the_client_says_what_the_service_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page's pictures are digits here, and its service another port's."""
    program, *_ = blocks(ROOT / "docs" / "client.md", "python")
    for number, name in enumerate(("cat.png", "a.png", "b.png")):
        write_png(tmp_path / name, load_dataset("digits", "test").images[number])
    monkeypatch.chdir(tmp_path)
    with serve_bundle(tmp_path / "log") as server:
        assert program.count("http://127.0.0.1:8000") == 1
        names: dict[str, Any] = {}
        exec(program.replace("http://127.0.0.1:8000", str(server.base_url)), names)
    first, *events, last = capsys.readouterr().out.splitlines()
    assert first.startswith("6 1.0 ")
    assert events[0].startswith("cost=")
    assert last.startswith("415 urn:limpid:problem:unsupported-format Unsupported image format")
    assert names["answer"].steps == 1000
    assert names["several"].failed == 0
    assert (tmp_path / "purified.png").stat().st_size > 50


def test_a_bundle_goes_to_a_hub_folder_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    *_, program = blocks(ROOT / "docs" / "client.md", "python")
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(program, names)
    assert names["bundle"].digest == read_manifest(DIGITS).digest


def test_evaluation_from_python_counts_the_worst_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("tutorials/evaluate.md", tmp_path, monkeypatch)
    found: Evaluation = names["evaluation"]
    assert {each.name for each in found.attacks} == {"transfer-bare", "bpda-pgd", "smooth-pgd"}
    assert found.worst_case.correct <= min(each.statistics.mean_logit.correct for each in found.attacks)
    assert names["module"](names["images"]).shape == (2, 10)


def test_a_classifier_of_a_readers_own_is_exported_and_defended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = run("how-to/your-classifier.md", tmp_path, monkeypatch)
    x = torch.randn(3, 1, 8, 8)
    graph = OnnxClassifier((tmp_path / "model.onnx").read_bytes(), torch.device("cpu"))
    torch.testing.assert_close(graph(x), names["classifier"](x))
    assert names["evaluation"].worst_case.total == 2
