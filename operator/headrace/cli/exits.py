"""How a command ends badly: an exit code, a reason for programs, and a sentence for people."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

FAILED = 1
USAGE = BAD_INPUT = 2
INTERRUPTED = 130


class CliError(Exception):
    """A command cannot do what was asked, and says why and what helps."""

    def __init__(
        self,
        reason: str,
        message: str,
        exit_code: int = FAILED,
        *,
        errors: Sequence[Mapping[str, Any]] = (),
        text: str | None = None,
    ) -> None:
        """`errors` are single faults, each with its place (`file`, `line`, `field`) and a `message`.

        `text` is what people read, with all faults and what helps; by default the message.
        """
        self.reason, self.message, self.exit_code = reason, message, exit_code
        self.errors, self.text = tuple(errors), text or message
        super().__init__(message)


def show_error(error: CliError, arguments: Sequence[str]) -> None:
    """Show the error as the command line asks for its output: JSON on standard output, or text on standard error."""
    if wants_json(arguments):
        shown = {"reason": error.reason, "message": error.message, "errors": [dict(e) for e in error.errors]}
        print(json.dumps({"error": shown}, indent=2, ensure_ascii=False))
        return
    print(f"headrace: {error.text}", file=sys.stderr)


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for JSON, even one that could not be understood."""
    return re.search(r"(^|\0)(-o\0?=?|--output[\0=])json(\0|$)", "\0".join(arguments)) is not None
