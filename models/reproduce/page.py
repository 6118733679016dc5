"""`models/RESULTS.md`: a row for each number of a paper, ours beside it, and why they differ."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from models.errors import DataError
from models.files import replace_file
from models.reproduce.experiments import RESULT
from models.reproduce.result import Number, Reproduction

PACKAGE = Path(__file__).parents[1]
INTRODUCTION = """\
# Results of the papers, remade

What *EBM Life Cycle* (arXiv 2205.12243) and *Implicit Generation and Generalization in EBMs* (arXiv 1903.08689) report,
and what the same experiment gives here at a size for two CPU cores. A dash stands where one of the two has no number;
what is marked "from memory" was not checked against the paper.
Each section has the command that remakes it; its result.json holds everything else that was set and measured."""


def publish(folder: Path, package: Path = PACKAGE) -> None:
    """Copy a run's result, pictures and files to `package/results/NAME`, and write `package/RESULTS.md` anew."""
    result = read_reproduction(folder / RESULT)
    target = package / "results" / result.name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in (RESULT, *result.pictures, *result.files):
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / file, target / file)
    replace_file(package / "RESULTS.md", render_results(published(package)).encode())


def published(package: Path = PACKAGE) -> list[Reproduction]:
    """Every result in `package/results`, by name."""
    return [read_reproduction(path) for path in sorted(package.glob(f"results/*/{RESULT}"))]


def read_reproduction(path: Path) -> Reproduction:
    """A result of `python -m models reproduce`; raises DataError that names the file."""
    try:
        return Reproduction.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(f"{path} is not a result of `python -m models reproduce`: {error}") from error


def render_results(results: Sequence[Reproduction]) -> str:
    """The page in Markdown."""
    lines = ["| experiment | number | paper | ours |", "|---|---|---|---|"]
    for result in results:
        link = f"[{result.title}](#{result.name})"
        lines += [
            f"| {link if place == 0 else ''} | {number.what} | {_value(number, 'paper')} | {_value(number, 'ours')} |"
            for place, number in enumerate(result.numbers)
        ]
    return "\n\n".join([INTRODUCTION, "\n".join(lines), *map(_section, results)]) + "\n"


def _section(result: Reproduction) -> str:
    pictures = [f"![{result.title}](results/{result.name}/{picture})" for picture in result.pictures]
    parts = [
        f'<a id="{result.name}"></a>\n## {result.title}',
        f"**Paper**: {result.source}",
        f"**Ours**: {result.setting} {result.cpu_hours:.2f} CPU hours.",
        f"**Why they differ**: {result.why}",
        _spreads(result.numbers),
        *pictures,
        f"Remade by `{result.command}` (commit {result.commit[:12]}).",
    ]
    return "\n\n".join(filter(None, parts))


def _spreads(numbers: Sequence[Number]) -> str:
    """What ± stands for: once where it is the same everywhere, else by number."""
    kinds = {number.what: number.spread for number in numbers if number.spread}
    if len(set(kinds.values())) > 1:
        return " ".join(f"{what}: ± is the {kind}." for what, kind in kinds.items())
    return "".join(f"± is the {kind}." for kind in dict.fromkeys(kinds.values()))


def _value(number: Number, whose: str) -> str:
    value, spread = getattr(number, whose), getattr(number, f"{whose}_spread")
    if value is None:
        return "-"
    shown = f"{value:g}{'' if spread is None else f' ± {spread:g}'} {number.unit}".rstrip()
    return f"{shown} (from memory)" if whose == "paper" and number.recalled else shown
