"""Where settings come from, what is refused, and how `python -m service` ends when it can not start."""

import ast
import json
import shutil
import socket
from pathlib import Path

import pytest
import torch

import service
from models.errors import ConfigError
from service.__main__ import main
from service.app import build_fleet
from service.errors import SettingsError
from service.jobs import Params
from service.settings import DEFAULT_BUNDLE, Settings, load_settings, setting_sources

DIGITS = Path(__file__).parents[2] / "models" / "zoo" / "digits-midrun"


def test_defaults() -> None:
    settings = load_settings([], {})
    assert settings == Settings()
    assert (settings.host, settings.port, settings.max_body_bytes) == ("127.0.0.1", 8000, 10 * 2**20)
    assert settings.bundle == DEFAULT_BUNDLE
    assert settings.bundle.parts[-3:] == ("models", "zoo", "cifar10-robust")


def test_every_setting_is_read_somewhere() -> None:
    folder = Path(service.__file__).parent
    trees = [ast.parse(path.read_text()) for path in folder.glob("*.py") if path.name != "settings.py"]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    read = {
        node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("settings")
    }
    assert Settings.model_fields.keys() - read == set()


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
        ([], {"LIMPID_MAX_REQUESTS": "0"}, "LIMPID_MAX_REQUESTS '0'"),
        ([], {"LIMPID_OVERLOAD_STATUS": "500"}, "LIMPID_OVERLOAD_STATUS 500: .*503 or 429"),
        ([], {"LIMPID_DOCS": "perhaps"}, "LIMPID_DOCS 'perhaps'"),
        ([], {"LIMPID_QUEUE_LIMIT": "64"}, "LIMPID_QUEUE_LIMIT; known: .*LIMPID_API_KEYS_FILE, LIMPID_CONFIG"),
        ([], {"LIMPID_KEYS_FILE_FILE": "x"}, "LIMPID_KEYS_FILE_FILE"),
        ([], {"LIMPID_API_KEYS_FILE": "/nowhere"}, "LIMPID_API_KEYS_FILE: can not read /nowhere"),
        ([], {"LIMPID_BODY_TIMEOUT": "inf"}, "LIMPID_BODY_TIMEOUT 'inf'"),
        ([], {"LIMPID_PROT": "8000"}, "LIMPID_PROT; known: .*LIMPID_PORT"),
        (["--port", "x", "--host", "h"], {"LIMPID_MAX_STEPS": "-1"}, "--port 'x'.*LIMPID_MAX_STEPS '-1'|.*--port 'x'"),
    ],
)
def test_wrong_values_name_their_source(arguments: list[str], environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(arguments, environ)


@pytest.mark.parametrize("flag", ["--prot", "--api-keys", "--no-port", "--queue-limit"])
def test_an_unknown_flag_ends_the_program(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    with pytest.raises(SystemExit) as caught:
        load_settings([flag, "8000"], {})
    assert caught.value.code == 2
    assert flag in capsys.readouterr().err


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "limpid.toml"
    path.write_text('port = 1\nmax_steps = 11\nmax_body_bytes = "1MiB"\ndocs = false\nrate_limit = 2.5\n')
    return path


def test_flags_win_over_variables_over_the_file(config: Path) -> None:
    environ = {"LIMPID_PORT": "2", "LIMPID_MAX_STEPS": "12", "LIMPID_OVERLOAD_STATUS": "429"}
    settings = load_settings(["--config", str(config), "--port", "3", "--docs", "--insecure"], environ)
    assert (settings.port, settings.max_steps, settings.max_body_bytes) == (3, 12, 2**20)
    assert (settings.docs, settings.insecure, settings.rate_limit) == (True, True, 2.5)
    assert settings.overload_status == 429
    assert settings.max_replicates == Settings().max_replicates
    sources = setting_sources(["--config", str(config), "--port", "3"], environ)
    assert sources["port"] == "--port"
    assert sources["max_steps"] == "LIMPID_MAX_STEPS"
    assert sources["rate_limit"] == f"{config}: rate_limit"
    assert sources["max_replicates"] == "default"
    assert sources.keys() == Settings.model_fields.keys()


def test_the_file_may_be_a_variable_and_the_flag_wins(config: Path, tmp_path: Path) -> None:
    assert load_settings([], {"LIMPID_CONFIG": str(config)}).port == 1
    (tmp_path / "other.toml").write_text("port = 9\n")
    flags = ["--config", str(tmp_path / "other.toml")]
    assert load_settings(flags, {"LIMPID_CONFIG": str(config)}) == Settings(port=9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "limpid.toml: unknown key prot; known: bundle, .*port"),
        ("port = 'many'", "limpid.toml: port 'many'"),
        ("[port]\nhost = 1", "limpid.toml: port {'host': 1}"),
        ("overload_status = [503]", "limpid.toml: overload_status .*503 or 429"),
        ("config = 'x'", "unknown key config"),
        ("port = x", "limpid.toml: .*line 1"),
        ("\xff", "limpid.toml: "),
    ],
)
def test_a_wrong_file_names_itself_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "limpid.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises((SettingsError, ConfigError), match=message):
        load_settings(["--config", str(path)], {})


def test_a_file_that_is_absent_or_a_folder(tmp_path: Path) -> None:
    for path, message in ((tmp_path, "can not be read"), (tmp_path / "none", "does not exist")):
        with pytest.raises(ConfigError, match=message):
            load_settings(["--config", str(path)], {})


def test_a_secret_comes_from_a_variable_the_file_or_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("ci:abc\n")
    (tmp_path / "limpid.toml").write_text("api_keys = 'ci:abc'\n")
    for environ in (
        {"LIMPID_API_KEYS": "ci:abc"},
        {"LIMPID_API_KEYS_FILE": str(tmp_path / "secret")},
        {"LIMPID_CONFIG": str(tmp_path / "limpid.toml")},
    ):
        settings = load_settings([], environ)
        assert settings.api_keys is not None
        assert settings.api_keys.get_secret_value() == "ci:abc"
        assert "abc" not in repr(settings)
    with pytest.raises(SettingsError, match="LIMPID_API_KEYS_FILE and LIMPID_API_KEYS are both set"):
        load_settings([], {"LIMPID_API_KEYS": "a:b", "LIMPID_API_KEYS_FILE": str(tmp_path / "secret")})


def test_a_wrong_secret_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "limpid.toml").write_text("api_keys = ['hush']\n")
    with pytest.raises(SettingsError, match="limpid.toml: api_keys: .*valid string") as caught:
        load_settings(["--config", str(tmp_path / "limpid.toml")], {})
    assert "hush" not in str(caught.value)


def test_the_config_command_prints_a_file_that_gives_the_same_settings(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--config", str(config), "--bundle", 'odd "name"\\\té\U0001f600', "--keys-file", "keys.toml"]
    environ = {"LIMPID_SLOTS": "8", "LIMPID_API_KEYS": "ci:hush"}
    monkeypatch.setattr("os.environ", environ)
    assert main(["config", *flags]) == 0
    printed = capsys.readouterr().out
    assert "hush" not in printed
    lines = dict(line.removeprefix("# ").split(" ", 1) for line in printed.splitlines())
    assert lines.keys() == Settings.model_fields.keys()
    assert lines["slots"] == "= 8  # LIMPID_SLOTS"
    assert lines["port"] == f"= 1  # {config}: port"
    assert lines["api_keys"] == "is set, and not shown  # LIMPID_API_KEYS"
    assert lines["max_images"] == "= 32  # default"
    saved = tmp_path / "saved.toml"
    saved.write_text(printed)
    again = load_settings(["--config", str(saved)], {"LIMPID_API_KEYS": "ci:hush"})
    assert again == load_settings(flags, environ)


def test_the_config_command_refuses_as_serving_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--port 'x'" in _refusal(capsys, "config", "--port", "x")


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


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_public_address_without_keys_is_refused_with_both_ways_out(
    capsys: pytest.CaptureFixture[str], host: str
) -> None:
    error = _refusal(capsys, "--bundle", str(DIGITS), "--host", host, "--port", "0")
    assert host in error
    assert "--keys-file" in error
    assert "--insecure" in error


def test_a_public_address_is_served_when_it_is_allowed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both get as far as the port, which is taken."""
    with socket.create_server(("0.0.0.0", 0)) as taken:
        flags = ["--bundle", str(DIGITS), "--host", "0.0.0.0", "--port", str(taken.getsockname()[1])]
        assert "in use" in _refusal(capsys, *flags, "--insecure")
        monkeypatch.setenv("LIMPID_API_KEYS", "ci:hush")
        assert "in use" in _refusal(capsys, *flags)


def test_the_onnx_classifier_answers_as_the_torch_one() -> None:
    engines = [build_fleet(Settings(bundle=DIGITS, device="cpu", runtime=runtime)) for runtime in ("torch", "onnx")]
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        first, second = (engine.bundle.defence.classify(images) for engine in engines)
    assert torch.allclose(first, second, atol=1e-4)
    assert Params(engines[0].bundle.defence.preset).classify
