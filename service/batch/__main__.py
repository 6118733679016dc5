"""python -m service.batch SOURCE DEST: purify or classify a collection of images; the same command resumes it."""

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal, get_args

from models.bundle import Runtime, read_manifest
from models.console import console, error_console, positive_int, progress_bar, run_command
from models.device import resolve_device
from models.errors import ConfigError
from models.files import sole_writer
from service.answer_arguments import CLASSIFYING, add_classify_arguments, given_options, seed
from service.batch.answering import SLOTS
from service.batch.cluster import process_on_cluster
from service.batch.outputs import require_pyarrow
from service.batch.parts import Kind, survey
from service.batch.question import FORMATS, Format, Question, Task, kept_seed, settle_question
from service.batch.sources import open_source
from service.batch.tally import count_output
from service.batch.work import Processor, Work
from service.errors import ServiceError
from service.settings import DEFAULT_BUNDLE, Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 for what the user can correct or what stopped the engine: what is written is kept."""
    options = _parser().parse_args(arguments)
    options.run = run
    try:
        return run_command(options)
    except ServiceError as error:
        error_console.print(f"error: {error}; what is written is kept, and the same command goes on", style="red")
        return 2


def run(options: argparse.Namespace) -> None:
    """Answer every image of SOURCE once, into DEST; the same command goes on where it was stopped."""
    folder = options.dest.resolve()
    with sole_writer(folder):
        work = _work(options, folder)
        question = work.question
        done = question.images - sum(part.length for part in work.missing())
        console.print(
            f"{question.images} images in {question.parts} parts, {done} answered before; seed {question.seed}"
        )
        with progress_bar(question.task, question.images, done) as progress:
            for images in _processed(work, options):
                progress.advance(progress.task_ids[0], images)
        tally = count_output(work)
    console.print(
        f"{question.images} images in = {tally.answered} answered + {tally.failed} failed, "
        f"each with one row in the {question.parts} parts of {folder}"
    )


def _processed(work: Work, options: argparse.Namespace) -> Iterator[int]:
    """The images of each part, as it is written."""
    missing = work.missing()
    if (first := next(missing, None)) is None:
        return
    parts = itertools.chain((first,), missing)
    if options.ray:
        yield from process_on_cluster(work, list(parts), options.ray, options.actors)
        return
    with closing(Processor(work)) as processor:
        for part in processor.process(parts):
            yield part.length


def _work(options: argparse.Namespace, folder: Path) -> Work:
    """The question, settled with what the folder holds, and where its parts are."""
    manifest, kind = read_manifest(options.bundle), options.format or FORMATS[options.task][0]
    if kind not in FORMATS[options.task]:
        raise ConfigError(f"--format {kind} can not hold {options.task}; expected {', '.join(FORMATS[options.task])}")
    if kind == "parquet":
        require_pyarrow()
    device = _device(options)
    family: Literal["cpu", "cuda"] = "cuda" if device.startswith("cuda") else "cpu"
    source = open_source(options.source.resolve(), options.kind, options.column)
    if options.source.is_dir() and folder.is_relative_to(source.root):
        raise ConfigError(f"{folder} is inside {source.root}: what is written would be read as images")
    found = survey(source, options.part_size)
    question = Question(
        task=options.task,
        format=kind,
        options=given_options(options, CLASSIFYING),
        bundle=manifest.digest,
        runtime=options.runtime,
        device=family,
        slots=options.slots or SLOTS[family],
        seed=kept_seed(folder, options.seed),
        source=found.digest,
        images=found.images,
        parts=found.parts,
        part_size=options.part_size,
        max_pixels=options.max_pixels,
    )
    question.plan(manifest)  # refused before anything is written
    settle_question(folder, question)
    return Work(source, folder, options.bundle.resolve(), question, device)


def _device(options: argparse.Namespace) -> str:
    """The device of whoever does the work; a cluster's GPUs are not this machine's to look for."""
    if not options.ray:
        return str(resolve_device(options.device or "auto"))
    if options.device not in (None, "cpu", "cuda"):
        raise ConfigError(f"--device {options.device} names a device of one machine; with --ray say cpu or cuda")
    return options.device or "cpu"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m service.batch", description=run.__doc__)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a folder of images, or parquet or tar files")
    parser.add_argument("dest", type=Path, metavar="DEST", help="the folder of the output")
    parser.add_argument("--task", choices=get_args(Task), default="classify", help="default %(default)s")
    written = "jsonl or parquet (classify; default jsonl), png or parquet (purify; default png)"
    parser.add_argument("--format", choices=get_args(Format), help=written)
    parser.add_argument("--bundle", type=Path, default=DEFAULT_BUNDLE)
    parser.add_argument("--runtime", choices=get_args(Runtime), default="torch", help="default %(default)s")
    parser.add_argument("--kind", choices=get_args(Kind), help="what SOURCE holds (default: what its first file is)")
    parser.add_argument("--column", help="of parquet files: the images' (default: the only one that can be)")
    parser.add_argument("--part-size", type=positive_int, default=1024, help="images a part file (default %(default)s)")
    parser.add_argument("--seed", type=seed, help="of the noise (default: one that nobody can know, kept in DEST)")
    parser.add_argument("--max-pixels", type=positive_int, default=Settings().max_pixels, help="default %(default)s")
    parser.add_argument("--device", help="auto (the default), cpu, cuda, cuda:N; with --ray cpu (the default) or cuda")
    parser.add_argument("--slots", type=positive_int, help=f"chains a core, or a GPU, moves together (default {SLOTS})")
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="of a Ray cluster; SOURCE, DEST and the bundle are shared there"
    )
    parser.add_argument("--actors", type=positive_int, help="of the cluster (default: as many as it has CPUs or GPUs)")
    answers = parser.add_argument_group("the answer, as a request to the service would ask for it")
    add_classify_arguments(answers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
