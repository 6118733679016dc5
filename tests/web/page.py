"""What a person does on the console's page, whatever a test is about."""

import os
import re
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.server_process import ROOT

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


def pick(page: Page, picture: Path) -> None:
    page.set_input_files("#file", picture)
    expect(page.locator("#status")).to_have_text(f"{picture.name} is ready.")


def finish(page: Page) -> None:
    expect(page.locator("#status")).to_have_text(re.compile("^Done in"))


def run(program: str, folder: Path, **variables: str) -> str:
    """What a program prints that stands alone but for the installed package."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{program}\n{ended.stderr}"
    return ended.stdout
