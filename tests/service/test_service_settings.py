"""Where settings come from, what is refused, and how `python -m service` ends when it can not start."""

import json
import shutil
import socket
from pathlib import Path

import pytest
import torch

from service.__main__ import main
from service.app import build_engine
from service.engine import Params
from service.errors import SettingsError
from service.settings import DEFAULT_BUNDLE, Settings, load_settings

DIGITS = Path(__file__).parents[2] / "models" / "zoo" / "digits-midrun"


def test_defaults() -> None:
    settings = load_settings([], {})
    assert settings == Settings()
    assert (settings.host, settings.port, settings.max_body_bytes) == ("127.0.0.1", 8000, 10 * 2**20)
    assert settings.bundle == DEFAULT_BUNDLE
    assert settings.bundle.parts[-3:] == ("models", "zoo", "cifar10-midrun")


def test_flags_win_over_variables_over_defaults() -> None:
    environ = {
        "LIMPID_PORT": "1",
        "LIMPID_MAX_BODY_BYTES": "2MiB",
        "LIMPID_CACHE": "elsewhere",
        "LIMPID_SERVICE_HOST": "10.0.0.1",  # Kubernetes makes such for a Service named limpid
        "LIMPID_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "HOME": "/",
    }
    settings = load_settings(["--port", "2", "--runtime", "onnx"], environ)
    assert (settings.port, settings.max_body_bytes, settings.runtime) == (2, 2 * 2**20, "onnx")
    assert settings.max_steps == Settings().max_steps


@pytest.mark.parametrize(
    ("arguments", "environ", "message"),
    [
        (["--port", "many"], {}, "--port 'many'"),
        (["--max-pixels", "999999999"], {}, "--max-pixels '999999999'"),
        ([], {"LIMPID_RUNTIME": "tpu"}, "LIMPID_RUNTIME 'tpu'"),
        ([], {"LIMPID_QUEUE_LIMIT": "0"}, "LIMPID_QUEUE_LIMIT '0'"),
        ([], {"LIMPID_BODY_TIMEOUT": "inf"}, "LIMPID_BODY_TIMEOUT 'inf'"),
        ([], {"LIMPID_PROT": "8000"}, "LIMPID_PROT; known: .*LIMPID_PORT"),
        (["--port", "x", "--host", "h"], {"LIMPID_MAX_STEPS": "-1"}, "--port 'x'.*LIMPID_MAX_STEPS '-1'|.*--port 'x'"),
    ],
)
def test_wrong_values_name_their_source(arguments: list[str], environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(arguments, environ)


def test_an_unknown_flag_ends_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load_settings(["--prot", "8000"], {})
    assert caught.value.code == 2
    assert "--prot" in capsys.readouterr().err


def _refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    return output.err


def test_a_folder_without_a_bundle_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{tmp_path} is not a bundle" in _refusal(capsys, "--bundle", str(tmp_path))


def test_changed_weights_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(DIGITS, tmp_path / "bundle")
    weights = folder / "energy.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    error = _refusal(capsys, "--bundle", str(folder))
    assert "energy.safetensors" in error
    assert "SHA-256" in error


def test_a_manifest_with_a_wrong_key_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(DIGITS, tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"default_preset": "best"}))
    assert "'best'" in _refusal(capsys, "--bundle", str(folder))


def test_a_default_preset_beyond_the_bounds_is_refused_at_start(capsys: pytest.CaptureFixture[str]) -> None:
    error = _refusal(capsys, "--bundle", str(DIGITS), "--max-replicates", "1")
    assert "default preset" in error
    assert "replicates" in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_asked_for_and_absent_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'cuda'" in _refusal(capsys, "--bundle", str(DIGITS), "--device", "cuda")


def test_a_port_in_use_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port}" in _refusal(capsys, "--bundle", str(DIGITS), "--port", port)


def test_the_onnx_classifier_answers_as_the_torch_one() -> None:
    engines = [build_engine(Settings(bundle=DIGITS, device="cpu", runtime=runtime)) for runtime in ("torch", "onnx")]
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        first, second = (engine.bundle.defence.classify(images) for engine in engines)
    assert torch.allclose(first, second, atol=1e-4)
    assert Params(engines[0].bundle.defence.preset).classify
