"""python -m attacks_eval strength: make rows, and the table of all that there are."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from attacks_eval.errors import ResultError
from attacks_eval.report.write import write_report
from attacks_eval.strength.bundles import bundle_rows
from attacks_eval.strength.candidates import LIST, Candidate, read_candidates
from attacks_eval.strength.measure import Row, Setting, measure
from attacks_eval.strength.parts import Parts
from attacks_eval.strength.table import markdown, plot
from models.config import validate
from models.console import console, positive_int
from models.device import resolve_device
from models.files import replace_file
from models.kept import kept_record, require_same

ROW = "row.json"
REPORTS = Path(__file__).parents[1] / "reports"


def strength(options: argparse.Namespace) -> None:
    """Measure candidates alike, training what they lack, and draw up the table of all rows that are there."""
    listed = read_candidates(options.list)
    setting = validate(Setting, {"images": options.images, "certified": options.certified}, "strength")
    parts = Parts(listed, options.out / "parts", resolve_device(options.device))
    for name in options.candidate or [each.name for each in listed.candidates]:
        candidate, folder = listed.named(name), options.out / "rows" / name
        if _kept(folder / ROW, candidate, setting) is None:
            made = measure(candidate, parts, setting, folder, options.workers, options.command)
            write_report(folder)
            replace_file(folder / ROW, (made.model_dump_json(indent=1) + "\n").encode())
    rows = [row for each in listed.candidates if (row := _newest(options.out, each, setting))]
    console.print(markdown(rows), markup=False, soft_wrap=True)
    plot(rows, options.out / f"{listed.title}.png")
    parts.keep(options.keep)
    if options.publish:
        publish(rows, listed.title, REPORTS)
        publish(bundle_rows(REPORTS, parts.device), "bundles", REPORTS)
        console.print(f"{REPORTS / 'STRENGTH.md'}: its table is written anew")


def marks(title: str) -> tuple[str, str]:
    """The lines of the page that enclose a table."""
    return f"<!-- {title} -->\n", f"<!-- end of {title} -->\n"


def publish(rows: Sequence[Row], title: str, reports: Path) -> None:
    """Put the rows and their plot into `reports/strength`, and the table into `reports/STRENGTH.md`, between its marks.

    Raises:
        ResultError: the page lacks the marks.
    """
    page, folder = reports / "STRENGTH.md", reports / "strength"
    text, (begin, end) = page.read_text(), marks(title)
    if not all(text.count(mark) == 1 for mark in (begin, end)):
        raise ResultError(f"{page}: expected each of {begin!r}, {end!r} once")
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        replace_file(folder / f"{row.candidate.name}.json", (row.model_dump_json(indent=1) + "\n").encode())
    plot(rows, folder / f"{title}.png")
    replace_file(page, f"{before}{begin}{markdown(rows)}\n{end}{after}".encode())


def _newest(out: Path, candidate: Candidate, setting: Setting) -> Row | None:
    """The row that was made here, or else the published one."""
    made = _kept(out / "rows" / candidate.name / ROW, candidate, setting)
    published = REPORTS / "strength" / f"{candidate.name}.json"
    if made or setting != Setting():
        return made
    return _kept(published, candidate, setting)


def _kept(path: Path, candidate: Candidate, setting: Setting) -> Row | None:
    """The finished row in `path`, described as the list now does.

    Raises:
        CheckpointError: it is another candidate's or setting's.
    """
    if (row := kept_record(path, Row, "a row")) is None:
        return None
    row = row.model_copy(update={"candidate": row.candidate.model_copy(update={"about": candidate.about})})
    asked = {"candidate": candidate.model_dump(), "setting": setting.model_dump()}
    require_same(path, {key: row.model_dump()[key] for key in asked}, asked)
    return row


def strength_arguments(parser: argparse.ArgumentParser) -> None:
    """What `strength` reads."""
    parser.add_argument("candidate", nargs="*", help="names of the list (default: all of it)")
    parser.add_argument("--list", type=Path, default=LIST, help="a TOML file (default: attacks_eval/strength's own)")
    parser.add_argument("--images", type=positive_int, default=64, help="attacked images (default %(default)s)")
    parser.add_argument("--certified", type=positive_int, default=32, help="certified images (default %(default)s)")
    parser.add_argument("--workers", type=positive_int, default=1, help="processes of one thread each (default 1)")
    parser.add_argument("--out", type=Path, default=Path("runs/strength"), help="default %(default)s")
    parser.add_argument(
        "--keep", action="append", default=[], metavar="PART", help="keep a trained part's weights beside the reports"
    )
    parser.add_argument("--publish", action="store_true", help="copy rows and table into attacks_eval/reports")
    parser.add_argument("--device", default="auto", help="auto (a GPU when there is one), cpu, cuda, cuda:1, ...")
