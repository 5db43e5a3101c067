"""From a command's words to its module, and from what that raises to an answer for the user."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from headrace.cli.exits import BAD_INPUT, FAILED, CliError
from headrace.core.edits import EditRefused
from headrace.shells.local.state import StateError
from headrace.shells.problems import ManifestError, Problem


def dispatch(command: str, *arguments: Any, **options: Any) -> int:
    """Run `module.function` of this package; returns the exit code. Raises `CliError`."""
    module, function = command.split(".")
    try:
        exit_code: int = getattr(import_module(f"headrace.cli.{module}"), function)(*arguments, **options)
    except ManifestError as error:
        raise bad_input(error.problems) from error
    except EditRefused as error:
        raise CliError(error.reason, error.message, FAILED) from error
    except StateError as error:
        exit_code = BAD_INPUT if error.reason in ("BadStateDir", "BadNamespace") else FAILED
        raise CliError(error.reason, error.message, exit_code) from error
    return exit_code


def bad_input(problems: tuple[Problem, ...], reason: str = "InvalidSpec", advice: str | None = None) -> CliError:
    """The error of files that cannot be used as they are, one line a fault."""
    lines = [str(problem) for problem in problems]
    head = f"{len(lines)} things are wrong" if len(lines) > 1 else lines[0]
    text = [*([f"{head}:"] if len(lines) > 1 else []), *lines, *([advice] if advice else [])]
    errors = [_shown(problem) for problem in problems]
    return CliError(reason, f"{head}. {advice}" if advice else head, BAD_INPUT, errors=errors, text="\n".join(text))


def _shown(problem: Problem) -> dict[str, Any]:
    fields = ("file", "line", "column", "object", "field", "message")
    return {name: value for name in fields if (value := getattr(problem, name)) is not None}
