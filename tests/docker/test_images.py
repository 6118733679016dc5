"""What the images are made of: the locks, the start and the ignore file."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.docker.deployment_files import DOCKER, ROOT

EXTRAS = {"cpu": ["cpu"], "gpu": ["gpu"], "train": ["gpu", "train"]}
HASH = re.compile(r" *--hash=sha256:[0-9a-f]{64}( \\)?")


def pins(text: str) -> dict[str, Version]:
    found = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, flags=re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in found}


def start() -> ModuleType:
    spec = spec_from_file_location("start", DOCKER / "start.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("target", EXTRAS)
def test_locks_hold_what_is_asked_for_at_the_versions_that_are_tested(target: str) -> None:
    lock = (DOCKER / f"requirements-{target}.txt").read_text()
    locked, tested = pins(lock), pins((ROOT / "constraints.txt").read_text())
    for name in locked.keys() & tested.keys():
        assert locked[name].public == tested[name].public, name
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = (project["optional-dependencies"][extra] for extra in EXTRAS[target])
    for requirement in map(Requirement, [*project["dependencies"], *(line for extra in extras for line in extra)]):
        assert locked[canonicalize_name(requirement.name)] in requirement.specifier, requirement
    assert locked["torch"].local == ("cpu" if target == "cpu" else None)
    assert any(name.startswith("nvidia-") for name in locked) == (target != "cpu")


@pytest.mark.parametrize("target", EXTRAS)
def test_locks_name_a_hash_for_every_package_and_nothing_else(target: str) -> None:
    lines = (DOCKER / f"requirements-{target}.txt").read_text().splitlines()
    lines = [line for line in lines if not line.startswith("#")]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        assert HASH.fullmatch(line) or re.fullmatch(r"[a-z0-9.-]+==\S+ \\", line), line
        assert line.endswith(" \\") == bool(HASH.fullmatch(following)), line


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "200000 100000\n"}, 2.0),
        ({"cpu.max": "50000 100000\n"}, 0.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "350000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_threads_follow_the_containers_quota(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    module = start()
    assert module.cpu_quota(tmp_path) == quota
    assert module.threads(tmp_path, cpus=8) == (8 if quota is None else max(1, int(quota)))
    assert module.threads(tmp_path, cpus=1) == 1


@pytest.mark.parametrize("given", [None, "3"])
def test_the_start_becomes_the_program(given: str | None) -> None:
    """The same process, so that a signal reaches it; its arguments as they were given; a chosen number stands."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    environment |= {"OMP_NUM_THREADS": given} if given else {}
    code = "import os, sys; print(os.getpid(), os.environ['OMP_NUM_THREADS'], sys.argv[1:])"
    command = [sys.executable, str(DOCKER / "start.py"), "-c", code, "--flag", "a b"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        output, _ = process.communicate(timeout=30)
    threads = given or str(start().threads(Path("/sys/fs/cgroup"), len(os.sched_getaffinity(0))))
    assert output == f"{process.pid} {threads} ['--flag', 'a b']\n"


def test_what_the_images_copy_is_there_and_not_ignored() -> None:
    """The ignore file leaves everything out but some; each source of a COPY must be among those."""
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    text = "\n".join(path.read_text() for path in DOCKER.rglob("Dockerfile"))
    sources = re.findall(r"^COPY (?!--from)(\S+) \S+$", text, flags=re.MULTILINE)
    assert {"models", "service", "docker/start.py", "constraints.txt"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists()
        assert any(Path(source) == Path(pattern) or Path(source).match(pattern) for pattern in kept), source
