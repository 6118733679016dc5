"""Every command that the documentation prints is understood by the program that it names, and so are its names."""

import argparse
import re
import shlex
from pathlib import Path

import pytest

import attacks_eval.__main__ as attacks_program
import models.__main__ as models_program
import service.batch.__main__ as batch_program
import service.cli.__main__ as cli_program
from attacks_eval.added import parse_added
from attacks_eval.commands import _plan
from attacks_eval.strength.candidates import read_candidates
from models.training.recipe import load_recipe
from service.commands import make_key
from service.settings import load_settings
from tests.docs.pages import PAGES, ROOT, Command, blocks, commands

PARSERS = {
    "models": models_program._parser(),
    "attacks_eval": attacks_program._parser(),
    "service.batch": batch_program._parser(),
    "limpid": cli_program._parser(),
}
COMMANDS = commands()


def test_there_are_commands_of_every_program() -> None:
    assert {command.program for command in COMMANDS} == {*PARSERS, "service"}
    assert len(COMMANDS) >= 50


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_commands_parse(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    match command.program, command.words:
        case "service", ["key", *words]:
            make_key(words)
        case "service", ["config", *words]:
            load_settings(words, {})
        case "service", words:
            load_settings(words, {})
        case program, words:
            check_names(PARSERS[program].parse_args(words))


@pytest.mark.parametrize("program", PARSERS)
def test_help_lists_every_command_and_each_has_its_own(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = PARSERS[program]
    listed = parser.format_help()
    subparsers = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for name, command in (item for action in subparsers for item in action.choices.items()):
        assert name in listed
        with pytest.raises(SystemExit, match="0"):
            parser.parse_args([name, "--help"])
        assert " ".join(command.description.split()) in " ".join(capsys.readouterr().out.split())


def check_names(options: argparse.Namespace) -> None:
    """What a parser takes as text must be a recipe, a plan, an attack or a bundle that is there, or a reader's own."""
    if hasattr(options, "recipe") and not options.recipe.endswith(".toml"):
        load_recipe(options.recipe, options.set)
    if hasattr(options, "attack") and hasattr(options, "skip"):
        _plan(options)
        for added in options.attack or ():
            parse_added(added)
    for candidate in getattr(options, "candidate", ()):
        read_candidates(options.list).named(candidate)
    bundle = getattr(options, "bundle", None)
    if bundle is not None and bundle.is_relative_to("models"):
        assert (ROOT / bundle / "manifest.json").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_and_files_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    lines = [line for text in blocks(page, "") for line in text.splitlines()]
    for line in lines:
        if line.startswith("make "):
            assert line.split()[1] in targets
            for served in re.findall(r'SERVE_ARGS="([^"]*)"', line):
                load_settings(shlex.split(served), {})
        for path in re.findall(r"@(tests/\S+)|-f ((?:docker/)?\w+[.\w]*\.yaml)|(?<!/)\b(docker/\S+\.sh)", line):
            assert (ROOT / "".join(path)).is_file()
