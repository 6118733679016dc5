"""The digits recipes as a user runs them: train, export, measure, look."""

import json
from pathlib import Path

import pytest
from PIL import Image

from attacks_eval.__main__ import main as attack
from models.__main__ import main as models
from models.bundle import read_manifest
from models.data import ImageDataset
from models.image_files import write_png


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle trained from nothing with the shipped digits recipes."""
    folder = tmp_path_factory.mktemp("digits")
    for recipe in ("digits_classifier", "digits_midrun"):
        assert models(["train", recipe, "--out", str(folder / recipe), "--device", "cpu"]) == 0
    checkpoints = [str(folder / recipe / "checkpoint.pt") for recipe in ("digits_midrun", "digits_classifier")]
    presets = Path(__file__).parent.parent / "models" / "recipes" / "digits_presets.toml"
    options = ["--presets", str(presets), "--out", str(folder / "bundle")]
    assert models(["export", checkpoints[0], "--classifier", checkpoints[1], *options]) == 0
    return folder


def test_a_run_leaves_its_recipe_metrics_and_pictures(trained: Path) -> None:
    run = trained / "digits_midrun"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    gaps = [line["energy_gap"] for line in lines if "energy_gap" in line]
    assert len(gaps) == 1500
    # Learning has settled: the energy gap swings around zero, small against its first size.
    assert abs(sum(gaps[-300:]) / 300) < 5.0
    warm = [line["warm_start_loss"] for line in lines if "warm_start_loss" in line]
    assert warm[-1] < 0.8 < 1.0 < warm[0]
    assert json.loads((run / "recipe.json").read_text())["sampler"]["num_steps"] == 20
    for picture in ("negatives.png", "diagnostics.png"):
        with Image.open(run / picture) as opened:
            assert opened.width > 50
    assert list((run / "tensorboard").iterdir())


def test_the_trained_defence_undoes_a_transfer_attack(trained: Path) -> None:
    out = trained / "baseline.json"
    arguments = ["--bundle", str(trained / "bundle"), "--images", "300", "--budget", "40", "--attack-step", "8"]
    assert attack(["baseline", *arguments, "--preset", "balanced", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    row = result["presets"]["balanced"]
    assert result["bare"]["attacked"]["accuracy"] < 0.3
    assert row["clean"]["accuracy"] > 0.95
    assert row["transfer"]["accuracy"] > 0.7

    assert models(["measured", str(trained / "bundle"), str(out)]) == 0
    card = (trained / "bundle" / "MODEL_CARD.md").read_text()
    assert f"{100 * row['transfer']['accuracy']:.1f} %" in card
    manifest = read_manifest(trained / "bundle")
    assert manifest.digest == result["bundle"]
    assert manifest.answers(result)
    other = manifest.presets["fast"]
    assert not manifest.model_copy(update={"presets": manifest.presets | {"balanced": other}}).answers(result)


def test_results_of_another_bundle_are_not_put_on_the_card(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "other.json"
    result.write_text(json.dumps({"kind": "baseline", "bundle": "0" * 64}))
    assert models(["measured", str(trained / "bundle"), str(result)]) == 2
    assert "was measured on another bundle than" in capsys.readouterr().err


def test_evaluate_sample_and_purify_answer_with_the_bundle(
    trained: Path, tmp_path: Path, digits_test: ImageDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = str(trained / "bundle")
    assert models(["evaluate", bundle, "--images", "100", "--preset", "fast"]) == 0
    assert "/100)" in capsys.readouterr().out
    assert models(["evaluate", bundle, "--images", "10", "--preset", "none"]) == 2
    assert "unknown preset 'none'" in capsys.readouterr().err

    grid = tmp_path / "grid.png"
    assert models(["sample", bundle, "--start", "data", "--steps", "10", "--count", "16", "--out", str(grid)]) == 0
    with Image.open(grid) as opened:
        assert opened.size == ((8 * 9 + 1) * 2, (2 * 9 + 1) * 2)

    write_png(tmp_path / "digit.png", digits_test.images[0])
    purified = tmp_path / "purified.png"
    assert models(["purify", str(tmp_path / "digit.png"), "-o", str(purified), "--bundle", bundle]) == 0
    with Image.open(purified) as opened:
        assert (opened.size, opened.mode) == ((8, 8), "L")
    label = digits_test.class_names[digits_test.labels[0]]
    assert f"{label} before, {label} after" in capsys.readouterr().out
