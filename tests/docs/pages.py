"""What the documentation prints: its pages, and the blocks of code in them."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.M | re.S)
PROGRAM = re.compile(
    r"(?:[A-Z_]+=\S+ )?(?:\.venv/bin/)?(?:python -m (?=models|service|attacks_eval)|(?=limpid ))"
    r"(models|service\.batch|service|attacks_eval|limpid)\b(.*)"
)


class Command(NamedTuple):
    """A line such as `python -m models train digits_midrun` or `limpid classify a.png`, and the page that prints it."""

    page: str
    program: str
    words: list[str]

    def __str__(self) -> str:
        return f"{self.page}: {self.program} {shlex.join(self.words)}"


def blocks(page: Path, language: str) -> list[str]:
    """The page's fenced blocks of a language, "" for those that name none."""
    return [text for name, text in BLOCK.findall(page.read_text()) if name == language]


def commands() -> list[Command]:
    """Every command of ours that a page prints as a block."""
    found = []
    for page in PAGES:
        lines = "".join(blocks(page, "") + blocks(page, "sh")).replace("\\\n", " ").splitlines()
        for line in lines:
            if match := PROGRAM.match(line):
                words = shlex.split(re.split(r" >>? ", match.group(2))[0], comments=True)
                found.append(Command(str(page.relative_to(ROOT)), match.group(1), words))
    return found
