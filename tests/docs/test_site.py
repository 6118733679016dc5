"""The site builds without a warning, needs nothing from elsewhere, and says what was measured."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest

from tests.docs.pages import ROOT

pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")

RESOURCES = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}


class Page(HTMLParser):
    """What a page fetches, and the text that a reader sees outside code."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.text = ""
        self._code = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self._code += tag in ("code", "script", "style", "pre")
        if tag == "img":
            self.pictures.append(attributes)
        if source := attributes.get(RESOURCES.get(tag, "")):
            self.fetched.append(source)

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag in ("code", "script", "style", "pre")

    def handle_data(self, data: str) -> None:
        self.text += "" if self._code else data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make docs` does, into a folder of the test's own."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {str(path.relative_to(site)): Page(path.read_text()) for path in site.rglob("*.html")}


def test_nothing_is_fetched_from_elsewhere(site: Path, pages: dict[str, Page]) -> None:
    assert len(pages) >= 25
    for page in pages.values():
        assert page.fetched
        assert [source for source in page.fetched if re.match(r"(?!data:)\w+:|//", source)] == []
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//|@import", sheet.read_text())


def test_pages_are_rendered_whole(pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        assert not re.search(r"\]\(|\{\{|^```|^:::", page.text, flags=re.M), name
        assert all(picture.get("alt") for picture in page.pictures), name


def test_every_page_of_docs_is_a_page(site: Path) -> None:
    docs = ROOT / "docs"
    for path in (*docs.rglob("*.md"), *docs.rglob("*.ipynb")):
        name = path.relative_to(docs).with_suffix("")
        assert (site / (name if name.name != "index" else name.parent) / "index.html").is_file()


@pytest.mark.parametrize("bundle", ["cifar10-robust", "cifar10-midrun", "digits-midrun"])
def test_the_worst_case_is_the_report_s(pages: dict[str, Page], bundle: str) -> None:
    result = json.loads((ROOT / "attacks_eval" / "reports" / bundle / "robustness" / "result.json").read_text())
    worst = result["worst_case"]
    shown = f"{100 * worst['accuracy']:.1f} % [{100 * worst['low']:.1f}, {100 * worst['high']:.1f}]"
    limits = pages["limits/index.html"].text
    assert limits.index(shown) < limits.index(f"{100 * result['clean']['mean_logit']['accuracy']:.1f} %")
    assert bundle == "digits-midrun" or shown in pages["index.html"].text


def test_how_blind_ood_is_stands_among_the_limits(pages: dict[str, Page]) -> None:
    result = json.loads((ROOT / "models" / "results" / "igebm-detection" / "result.json").read_text())
    ours = {each["what"]: each["ours"] for each in result["numbers"]}
    for images in ("mnist", "digits", "interpolation"):
        assert f" {ours[f'AUROC by typicality: {images}']:.3f} for " in pages["limits/index.html"].text.replace(
            "\n", " "
        )
    with pytest.raises(Exception, match=r"unknown images 'svhn' of igebm-detection; known: interpolation, "):
        hook("measured").answer(ROOT, "typicality", "igebm-detection", "svhn")


def test_the_reference_names_what_is_public(pages: dict[str, Page], site: Path) -> None:
    html = (site / "reference" / "models" / "index.html").read_text()
    assert 'id="models.purifier.PurifiedClassifier.purify"' in html
    assert not re.search(r'id="[\w.]*\._\w+"', html)
    assert 'href="../reference/models/#models.langevin.run_langevin"' in (site / "how-it-works/index.html").read_text()


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "reference").glob("*.md")), ids=lambda path: path.stem)
def test_what_the_reference_asks_for_is_there(site: Path, page: Path) -> None:
    html = (site / "reference" / page.stem / "index.html").read_text()
    asked = re.findall(r"^::: (\S+)(?:\n    options:\n      members: \[(.*)\])?", page.read_text(), flags=re.M)
    assert asked
    for module, members in asked:
        for name in (module, *(f"{module}.{member}" for member in members.split(", ") if member)):
            assert f'id="{name}"' in html, name


def hook(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "hooks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def copied(folder: Path, worst_of_manifest: int) -> Path:
    """A repository with the digits' results, whose manifest may tell of another worst case."""
    for path in ("models/zoo/digits-midrun/manifest.json", "attacks_eval/reports/digits-midrun/robustness/result.json"):
        found = json.loads((ROOT / path).read_text())
        if "measured" in found:
            found["measured"]["robustness"]["worst_case"]["correct"] = worst_of_manifest
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text(json.dumps(found))
    return folder


def test_numbers_of_another_measurement_stop_the_build(tmp_path: Path) -> None:
    measured = hook("measured")
    worst = json.loads((ROOT / "attacks_eval/reports/digits-midrun/robustness/result.json").read_text())["worst_case"]
    answer = measured.answer(copied(tmp_path / "same", worst["correct"]), "worst", "digits-midrun")
    assert answer.endswith(f"of {worst['total']}")
    with pytest.raises(Exception, match=r"its manifest's robustness is not that of its report"):
        measured.answer(copied(tmp_path / "other", worst["correct"] + 1), "worst", "digits-midrun")
    with pytest.raises(Exception, match=r"unknown question 'best'; known: worst, "):
        measured.answer(ROOT, "best", "digits-midrun")
    with pytest.raises(Exception, match=r"unknown attack 'magic'.*bpda-pgd"):
        measured.answer(ROOT, "held", "digits-midrun", "magic")


def test_links_lead_to_the_site_or_to_a_path_and_never_nowhere() -> None:
    repository = hook("repository")

    def follow(text: str, here: str = "how-to/a.md") -> str:
        places = {"how-to/a.md", "operations.md", "repository/SECURITY.md", "repository/models/RESULTS.md"}
        return str(repository.relink(text, here, ROOT, places))

    assert follow("[a](../../SECURITY.md#b)") == "[a](../repository/SECURITY.md#b)"
    assert follow("[a](../operations.md), [b](https://a.b)") == "[a](../operations.md), [b](https://a.b)"
    assert follow("[a](docs/operations.md)", "repository/README.md") == "[a](../operations.md)"
    assert follow("[a](../../compose.yaml)") == "a (`compose.yaml`)"
    assert follow("```\n[a](none.md)\n```") == "```\n[a](none.md)\n```"
    with pytest.raises(Exception, match=r"docs/how-to/a.md links to \.\./none.md, and there is no docs/none.md"):
        follow("[a](../none.md)")
