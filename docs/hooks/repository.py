"""Pages that live in the repository, outside docs/, stand in the site without being copied.

Each becomes a page at `repository/` and its own path. Links follow: to files that the site has they lead there, and of
others only the path is left. A link to a file that does not exist is an error.
"""

import posixpath
import re
from collections.abc import Container, Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

IMPORTED = (
    "README.md",
    "SECURITY.md",
    "models/RESULTS.md",
    "models/results/**/*.png",
    "models/zoo/*/MODEL_CARD.md",
    "attacks_eval/reports/*/*/report.html",
    "attacks_eval/reports/*/*/report.md",
    "attacks_eval/reports/*/*/README.md",
    "tests/benchmarks/README.md",
)
PLACE = "repository"
FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2 *$", flags=re.M | re.S)
LINK = re.compile(r"(?<!`)(!?)\[([^\]]*)\]\(([^)\s]+)\)")
ELSEWHERE = re.compile(r"[a-z]+:|#")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the repository's files to those of docs/."""
    root = Path(config.docs_dir).parent
    for pattern in IMPORTED:
        for path in sorted(root.glob(pattern)):
            place = posixpath.join(PLACE, path.relative_to(root).as_posix())
            files.append(File.generated(config, place, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let the page's links, but for those in code, lead to where their files stand in the site."""
    return relink(markdown, page.file.src_uri, Path(config.docs_dir).parent, files.src_uris)


def relink(markdown: str, here: str, root: Path, places: Container[str]) -> str:
    """The page at `here` with its links changed; raises PluginError for one to a file that does not exist.

    Args:
        places: every file of the site.
    """

    def follow(link: re.Match[str]) -> str:
        picture, words, target = link.groups()
        if ELSEWHERE.match(target):
            return link.group(0)
        path, mark, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(_source(here)), path))
        place = _place(path)
        if place in places:
            return f"{picture}[{words}]({posixpath.relpath(place, posixpath.dirname(here))}{mark}{anchor})"
        if not (root / path).exists():
            raise PluginError(f"{_source(here)} links to {target}, and there is no {path}")
        return words if words.strip("`") == path else f"{words} (`{path}`)"

    return "".join(LINK.sub(follow, text) if prose else text for prose, text in _parts(markdown))


def _parts(markdown: str) -> Iterator[tuple[bool, str]]:
    """The text in order, each part with whether it is prose and not a block of code."""
    end = 0
    for block in FENCE.finditer(markdown):
        yield True, markdown[end : block.start()]
        yield False, block.group(0)
        end = block.end()
    yield True, markdown[end:]


def _source(place: str) -> str:
    """The path in the repository of what stands in the site at `place`."""
    return place.removeprefix(PLACE + "/") if place.startswith(PLACE + "/") else f"docs/{place}"


def _place(path: str) -> str:
    """Where the site has the repository's file at `path`."""
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{PLACE}/{path}"
