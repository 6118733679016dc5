"""The import rule: models imports neither of the others; service and attacks_eval import models, never each other.

One module is exempt: service/demo.py, which a server imports only when it was started with --demo.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "models": {"service", "attacks_eval"},
    "service": {"attacks_eval"},
    "attacks_eval": {"service"},
}
DEMO = ROOT / "service" / "demo.py"
MODULES = [path for package in FORBIDDEN for path in sorted((ROOT / package).rglob("*.py")) if path != DEMO]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_import_rule(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert not imported(path) & FORBIDDEN[package]


def test_the_demonstration_alone_brings_the_adversary_into_a_server() -> None:
    code = """
import sys
from service.app import create_app
from service.settings import Settings
digits = Settings().bundle.parent / "digits-midrun"
create_app(Settings(bundle=digits))
assert not {"attacks_eval", "service.demo"} & sys.modules.keys()
create_app(Settings(bundle=digits, demo=True))
assert "attacks_eval" in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_importing_has_no_effect() -> None:
    """Every module but the programs imports silently, and none reads the command line or changes torch's state."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
        if path.name != "__main__.py"
    ]
    code = f"""
import importlib, torch
before = (torch.get_rng_state().tolist(), torch.get_num_threads(), torch.get_default_dtype())
for name in {modules!r}:
    importlib.import_module(name)
assert before == (torch.get_rng_state().tolist(), torch.get_num_threads(), torch.get_default_dtype())
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
