"""limpid COMMAND: purify or classify image files, in this process or, with --url, through a service."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, closing, contextmanager, nullcontext
from http import HTTPStatus
from pathlib import Path
from typing import Any

from models.console import console, error_console, positive_int, progress_bar, run_command
from models.errors import ConfigError
from service import __version__
from service.answer_arguments import (
    CLASSIFYING,
    PURIFYING,
    add_classify_arguments,
    add_purify_arguments,
    given_options,
    seed,
    with_flags,
)
from service.cli.outputs import output_paths, write
from service.cli.replies import Refusal, Reply, SomeFailed
from service.cli.waiting import waiting_shown
from service.errors import ServiceError
from service.schemas import PurifiedImage

KEY_VARIABLE = "LIMPID_API_KEY"
PARALLEL = 8
FIRST_CONTACT_SECONDS = 5.0
"""For a service that was never there; one that was is waited for as long as the client does."""
LOCAL, REMOTE = ("bundle", "device"), ("api_key", "parallel")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 1 when some files have no answer, 2 for what concerns all of them, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    try:
        return run_command(options, "interrupted; the answers given so far are whole")
    except SomeFailed as error:
        error_console.print(str(error), style="red")
        return 1
    except ServiceError as error:
        unknown = getattr(error, "status", None) == HTTPStatus.UNAUTHORIZED
        hint = f" (here: --api-key, or better the variable {KEY_VARIABLE})" if unknown else ""
        error_console.print(f"error: {with_flags(str(error))}{hint}", style="red")
        return 2


def purify(options: argparse.Namespace) -> None:
    """Write each image after its chain as a PNG."""
    outputs = output_paths(options.files, options.out, options.overwrite)
    if options.url and options.seed is not None:
        raise ConfigError("--seed: the service's /purify takes none; it is for a bundle in this process")
    _answer(options, PURIFYING, outputs)


def classify(options: argparse.Namespace) -> None:
    """Say of each image what the defence, and the bare classifier, take it for."""
    _answer(options, CLASSIFYING, {})


def _answer(options: argparse.Namespace, names: tuple[str, ...], outputs: dict[Path, Path]) -> None:
    """Show, and write, every reply; raises SomeFailed in the end when files have none."""
    unfit = LOCAL if options.url else REMOTE
    if given := [name for name in unfit if getattr(options, name) is not None]:
        where = "belongs to a bundle in this process" if options.url else "needs --url"
        raise ConfigError(f"--{given[0].replace('_', '-')} {where}")
    failed = 0
    with _shown(options, outputs) as show:

        def take(reply: Reply) -> None:
            nonlocal failed
            failed += isinstance(reply.answer, Refusal)
            show(reply)

        asked = given_options(options, names)
        if options.url:
            asyncio.run(_remotely(options, asked, take))
        else:
            _locally(options, asked, take)
    if failed:
        raise SomeFailed(f"{failed} of {len(options.files)} files failed")


def _locally(options: argparse.Namespace, asked: dict[str, Any], take: Callable[[Reply], None]) -> None:
    # Imported here: with --url nothing of PyTorch is needed.
    from models.device import resolve_device
    from service.cli.local import answer_here
    from service.settings import DEFAULT_BUNDLE

    device, bundle = resolve_device(options.device or "auto"), options.bundle or DEFAULT_BUNDLE
    with closing(answer_here(options.task, options.files, asked, options.seed, bundle, device)) as replies:
        for reply in replies:
            take(reply)


async def _remotely(options: argparse.Namespace, asked: dict[str, Any], take: Callable[[Reply], None]) -> None:
    try:
        from service.cli.remote import answer_there
        from service.client import AsyncClient, Retries
    except ImportError as error:
        raise ConfigError(f"--url: {error}") from error

    drawn = {} if options.seed is None else {"seed": options.seed}
    key = options.api_key or os.environ.get(KEY_VARIABLE)
    async with AsyncClient(options.url, key, retries=Retries(first_contact=FIRST_CONTACT_SECONDS)) as client:
        replies = answer_there(options.task, options.files, asked | drawn, client, options.parallel or PARALLEL)
        with waiting_shown():
            async with aclosing(replies):
                async for reply in replies:
                    take(reply)


@contextmanager
def _shown(options: argparse.Namespace, outputs: dict[Path, Path]) -> Iterator[Callable[[Reply], None]]:
    """A function that writes a reply's image and prints its line, above a bar when there are several."""
    # A bar stays out of what is piped elsewhere; on one terminal, one console must draw both.
    on = console if console.is_terminal else error_console
    bar = progress_bar(options.task, len(options.files), on=on) if len(options.files) > 1 else nullcontext()

    def show(reply: Reply) -> None:
        out = outputs.get(reply.file)
        if isinstance(reply.answer, PurifiedImage):
            write(outputs[reply.file], reply.answer.png)
        if isinstance(reply.answer, Refusal):
            error_console.print(reply.line(out), style="red", emoji=False)
        if options.json:
            console.print(json.dumps(reply.row(out)), emoji=False)
        elif not isinstance(reply.answer, Refusal):
            console.print(reply.line(out), emoji=False)
        if progress is not None:
            progress.advance(progress.task_ids[0])

    with bar as progress:
        yield show


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="limpid", description="Purify or classify image files.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for run, add_arguments in ((purify, add_purify_arguments), (classify, add_classify_arguments)):
        command = commands.add_parser(run.__name__, help=run.__doc__, description=run.__doc__)
        command.set_defaults(run=run, task=run.__name__)
        command.add_argument("files", nargs="+", type=Path, metavar="FILE", help="PNG, JPEG or WebP")
        if run is purify:
            command.add_argument("-o", "--out", required=True, help="a .png file, or a folder for several files")
            command.add_argument("--overwrite", action="store_true", help="replace files that exist, inputs included")
        command.add_argument("--json", action="store_true", help="one JSON object a file, on standard output")
        add_arguments(command.add_argument_group("the answer"))
        command.add_argument("--seed", type=seed, help="of the noise, to have the same answer again")
        here = command.add_argument_group("in this process")
        here.add_argument("--bundle", type=Path, help="a bundle's folder (default: cifar10-robust, which ships)")
        here.add_argument("--device", help="auto (the default: a GPU when there is one), cpu, cuda, cuda:N")
        there = command.add_argument_group("through a service")
        there.add_argument("--url", help="such as http://127.0.0.1:8000")
        secret = f"better in the variable {KEY_VARIABLE}: others may see a process's arguments"
        there.add_argument("--api-key", metavar="KEY", help=secret)
        there.add_argument("--parallel", type=positive_int, help=f"files under way at a time (default {PARALLEL})")
    return parser


if __name__ == "__main__":
    sys.exit(main())
