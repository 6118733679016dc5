"""The Compose files: valid, hardened, and with settings that the server takes."""

import json
import re
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from service.__main__ import LINGER_SECONDS
from service.settings import load_settings
from tests.docker.deployment_files import ROOT, documents, merged

SCHEMA = json.loads((files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json").read_text())
WAYS = {
    "alone": ["compose.yaml"],
    "gpu": ["compose.yaml", "docker/compose.gpu.yaml"],
    "keys": ["compose.yaml", "docker/compose.keys.yaml"],
    "both": ["compose.yaml", "docker/compose.gpu.yaml", "docker/compose.keys.yaml"],
}


def resolved(value: Any) -> Any:
    """With every ${NAME:-default} at its default."""
    if isinstance(value, dict):
        return {key: resolved(each) for key, each in value.items()}
    if isinstance(value, list):
        return [resolved(each) for each in value]
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) if isinstance(value, str) else value


def project(way: str) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for name in WAYS[way]:
        (document,) = documents(ROOT / name)
        whole = merged(whole, document)
    result: dict[str, Any] = resolved(whole)
    return result


def seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


@pytest.mark.parametrize("way", WAYS)
def test_the_specification_allows_it(way: str) -> None:
    for name in WAYS[way]:
        jsonschema.validate(documents(ROOT / name)[0], SCHEMA)
    jsonschema.validate(project(way), SCHEMA)


def test_the_specification_forbids_what_is_misspelt() -> None:
    wrong = project("alone")
    wrong["services"]["limpid"]["readonly"] = True
    with pytest.raises(jsonschema.ValidationError, match="readonly"):
        jsonschema.validate(wrong, SCHEMA)


@pytest.mark.parametrize("way", WAYS)
def test_every_service_is_hardened(way: str) -> None:
    for name, service in project(way)["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["pids_limit"] <= 512, name
        assert "privileged" not in service, name
        assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in service["ports"]), name
        assert all(re.fullmatch(r"/tmp:size=\d+m,noexec,nosuid", mount) for mount in service["tmpfs"]), name
        assert re.fullmatch(r"limpid:(cpu|gpu)|\S+:v?\d+\.\d+\.\d+", service["image"]), name


@pytest.mark.parametrize("way", WAYS)
def test_what_is_mounted_from_the_repository_is_there_and_read_only(way: str) -> None:
    content = project(way)
    for service in content["services"].values():
        for mount in service["volumes"]:
            source, _, options = mount.split(":") if mount.count(":") == 2 else (*mount.split(":"), "")
            if source in content["volumes"]:
                continue
            assert (ROOT / source).exists(), source
            assert options == "ro", mount
    assert (ROOT / content["secrets"]["metrics_key"]["file"]).is_file()


def test_git_ignores_every_file_that_holds_a_secret_or_a_key() -> None:
    """Those that Compose mounts, but the empty one that the repository holds, and the metrics key of the comments."""
    if not (ROOT / ".git").exists():
        pytest.skip("this copy is no clone")
    secrets = {ROOT / "metrics-key"}
    for path in (ROOT / "compose.yaml", *(ROOT / "docker").glob("compose.*.yaml")):
        given = resolved(documents(path)[0]).get("secrets", {}).values()
        # With several files, paths are relative to the first one's folder.
        folder = path.parent if path.name == "compose.ray.yaml" else ROOT
        secrets |= {folder / secret["file"] for secret in given}
    names = sorted(str(secret.relative_to(ROOT)) for secret in secrets)
    assert {"keys.toml", "metrics-key", "docker/secrets/ray-token", "docker/secrets/limpid-keys.toml"} <= set(names)
    names.remove("docker/monitoring/no-key")
    ignored = subprocess.run(["git", "check-ignore", *names], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ignored.stdout.split() == names


@pytest.mark.parametrize("way", WAYS)
def test_the_server_takes_its_settings(way: str, tmp_path: Path) -> None:
    service = project(way)["services"]["limpid"]
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    of_image = dict(word.split("=") for word in re.findall(r"LIMPID_\w+=\S+", dockerfile))
    settings = load_settings([], of_image | service["environment"])
    assert settings.host == "0.0.0.0"
    assert service["ports"][0].endswith(f":{settings.port}")
    assert seconds(service["stop_grace_period"]) > settings.drain_delay + settings.drain_timeout + 2 * LINGER_SECONDS
    assert (ROOT / settings.bundle.relative_to("/app") / "manifest.json").is_file()
    # Without keys everybody is let in, and only while the port is the machine's own.
    assert settings.insecure == (settings.keys_file is None)
    assert (way in ("keys", "both")) == (settings.keys_file is not None)
    if settings.keys_file is not None:
        assert settings.keys_file.name in service["secrets"]


def test_a_key_for_other_machines_is_asked_for_before_they_may_reach_the_port() -> None:
    """The address is a variable only where keys are."""
    assert "LIMPID_ADDRESS" not in str(documents(ROOT / "compose.yaml")[0]["services"])
    assert "LIMPID_ADDRESS" in str(documents(ROOT / "docker" / "compose.keys.yaml"))


def test_a_gpu_is_reserved_and_asked_for() -> None:
    service = project("gpu")["services"]["limpid"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert service["environment"]["LIMPID_DEVICE"] == "cuda"
    assert (service["build"]["target"], service["image"]) == ("gpu", "limpid:gpu")
