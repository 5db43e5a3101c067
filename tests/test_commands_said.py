"""Every `headrace` command that the Makefile, the README and the documents tell people to type is one that there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from headrace.cli.app import app

ROOT = Path(__file__).parents[1]
TOLD_IN = [ROOT / "Makefile", ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"^\s*@?(?:\$\(BIN\)/)?headrace ([a-z][^#|>&\n]*)", re.MULTILINE)
"""A line that is a command: without its comment, and without what a shell does with its output."""


def commands() -> list[str]:
    found = [match[1].strip() for file in TOLD_IN for match in COMMAND.finditer(file.read_text())]
    assert len(found) >= 5, "the pattern finds none of the commands"
    return found


@pytest.mark.parametrize("command", commands())
def test_command_that_people_are_told_to_type_is_understood(command: str) -> None:
    word, *arguments = shlex.split(command)
    group = typer.main.get_command(app)
    assert word in group.commands, f"there is no headrace {word}"  # type: ignore[attr-defined]
    group.commands[word].make_context(word, arguments)  # type: ignore[attr-defined]
