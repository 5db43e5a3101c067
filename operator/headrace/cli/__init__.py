"""The command line. Its words, exit codes and JSON are a contract: `app` has the words, each command its own module."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from headrace.cli.app import app
from headrace.cli.exits import INTERRUPTED, USAGE, CliError, show_error

_BROKEN_PIPE = 141
"""As a shell counts a process that writes to nobody: 128 + SIGPIPE."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. 0: done · 1: failed · 2: bad input · 130: interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return app(arguments, prog_name="headrace", standalone_mode=False) or 0
    except CliError as error:
        show_error(error, arguments)
        return error.exit_code
    except typer.TyperException as error:
        message = error.format_message()
        text = f"{message}\nsee `headrace --help`, or --help after the command"
        show_error(CliError("UsageError", message, USAGE, text=text), arguments)
        return USAGE
    except (KeyboardInterrupt, typer.Abort):
        show_error(CliError("Interrupted", "interrupted", INTERRUPTED), arguments)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        show_error(CliError("SystemError", f"{where}{error.strerror or error}"), arguments)
        return 1
