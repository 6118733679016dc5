"""Numbers in the pages are read when the site is built: `{{ worst cifar10-midrun }}` and the others in `SAYS`.

They come from the bundle's manifest and its report's result.json, which must agree.
`{{ typicality EXPERIMENT IMAGES }}` comes from that experiment's result.json in `models/results`.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from models import card_measurements

ASKED = re.compile(r"\{\{ *(\w+) +([\w.-]+)(?: +([\w.-]+))? *\}\}")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put what was measured in the place of each question; those of other files in the repository ask none."""
    if page.file.src_uri.startswith("repository/"):
        return markdown
    root = Path(config.docs_dir).parent
    return ASKED.sub(lambda asked: answer(root, *asked.groups()), markdown)


def answer(root: Path, what: str, bundle: str, detail: str | None = None) -> str:
    """Markdown; raises PluginError for an unknown question, or for results of other weights than the bundle's."""
    if what == "typicality":
        return _typicality(root, bundle, detail)
    if what not in SAYS:
        raise PluginError(f"unknown question {what!r}; known: {', '.join((*SAYS, 'typicality'))}")
    manifest = json.loads((root / "models" / "zoo" / bundle / "manifest.json").read_text())
    result = json.loads((root / "attacks_eval" / "reports" / bundle / "robustness" / "result.json").read_text())
    carded = manifest["measured"]["robustness"]
    if (carded["weights"], carded["worst_case"]) != (result["weights"], result["worst_case"]):
        raise PluginError(f"{bundle}: its manifest's robustness is not that of its report's result.json")
    return SAYS[what](manifest["measured"], result, detail)


def share(found: dict[str, Any]) -> str:
    """An accuracy with its interval, in per cent, and of how many images."""
    low, high = 100 * found["low"], 100 * found["high"]
    return f"{100 * found['accuracy']:.1f} % [{low:.1f}, {high:.1f}] of {found['total']:,}"


def _held(measured: dict[str, Any], result: dict[str, Any], attack: str | None) -> str:
    rows = {each["name"]: each["statistics"]["mean_logit"] for each in result["attacks"]}
    if attack not in rows:
        raise PluginError(f"unknown attack {attack!r} of {result['bundle_name']}; known: {', '.join(rows)}")
    return share(rows[attack])


def _transferred(measured: dict[str, Any], result: dict[str, Any], preset: str | None) -> str:
    rows = {name: row["transfer"] for name, row in measured["baseline"]["presets"].items()}
    rows["bare"] = measured["baseline"]["bare"]["attacked"]
    if preset not in rows:
        raise PluginError(f"unknown preset {preset!r}; known: {', '.join(rows)}")
    return share(rows[preset])


def _typicality(root: Path, experiment: str, images: str | None) -> str:
    """The AUROC of `ood` against one set of images, of an experiment in `models/results`."""
    result = json.loads((root / "models" / "results" / experiment / "result.json").read_text())
    prefix = "AUROC by typicality: "
    rows = {each["what"]: each["ours"] for each in result["numbers"]}
    found = {what.removeprefix(prefix): ours for what, ours in rows.items() if what.startswith(prefix)}
    if images not in found:
        raise PluginError(f"unknown images {images!r} of {experiment}; known: {', '.join(found)}")
    return f"{found[images]:.3f}"


def _not_done(result: dict[str, Any]) -> str:
    return "\n".join(f"- {each['item']}: {each['evidence']}" for each in result["checklist"] if not each["done"])


def _signs(result: dict[str, Any]) -> str:
    return "\n".join(f"- **{each['title']}**: {each['finding']}" for each in result["indicators"] if each["fired"])


SAYS: dict[str, Callable[[dict[str, Any], dict[str, Any], str | None], str]] = {
    "worst": lambda measured, result, detail: share(result["worst_case"]),
    "rounded": lambda measured, result, detail: share(result["worst_case_rounded"]),
    "clean": lambda measured, result, detail: share(result["clean"]["mean_logit"]),
    "budget": lambda measured, result, detail: f"{result['threat']['budget']:g}/255",
    "held": _held,
    "transferred": _transferred,
    "robustness": lambda measured, result, detail: card_measurements.robustness(measured["robustness"]),
    "baseline": lambda measured, result, detail: card_measurements.baseline(measured["baseline"]),
    "not_done": lambda measured, result, detail: _not_done(result),
    "signs": lambda measured, result, detail: _signs(result),
}
"""Questions by name: (the manifest's measurements, the report's result, a detail) to Markdown."""
