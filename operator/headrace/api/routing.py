"""Routing: a condition in CEL that says whether a record is for a batch, as in `size(record.text) < 2000`.

CEL is what Kubernetes itself writes conditions in. It always ends, and it has no way out into the machine. An expression is looked at
when an object is applied: it must parse, and may name nothing but `record` and what CEL brings along. What only a record can show (a
field that is not there, an answer that is neither true nor false) is an error of that record.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from headrace.api.base import FieldError, InvalidSpec, JsonObject

if TYPE_CHECKING:
    import cel

RECORD = "record"
"""What an expression calls the record: the fields of its line; for the format text `custom_id` and `text`."""

MODALITIES = "modalities"
"""A field of `record` beside its own: what it holds, of text, image and audio, as in `'image' in record.modalities`."""

Taker = Callable[[JsonObject], bool]
"""Whether a record is taken. Raises `RoutingError` when the expression does not fit the record."""

_FUNCTIONS = frozenset({"size", "contains", "startsWith", "endsWith", "matches", "min", "max", "int", "uint", "double", "string",
                        "bytes", "bool", "type", "dyn", "timestamp", "duration"})  # fmt: skip
_BOUND = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(\s*(\w+)\s*,")
"""The names that a macro binds, as in `record.tags.exists(tag, tag == 'x')`."""
_POINTER = re.compile(r"^\| .*\n?", re.MULTILINE)


class RoutingError(ValueError):
    """The expression says neither yes nor no to this record."""


def check_when(when: str, field: str) -> None:
    """Raise `InvalidSpec` naming `field` when the expression can never be evaluated."""
    try:
        program = _compiled(when)
    except ValueError as error:
        raise InvalidSpec([FieldError(field, f"is not an expression in CEL: {_first_error(str(error))}")]) from error
    problems = [*_unknown_names(program, when), *_unknown_functions(program)]
    if problems:
        raise InvalidSpec([FieldError(field, message) for message in problems])


def _unknown_names(program: cel.Program, when: str) -> list[str]:
    strangers = sorted(set(program.variables()) - {RECORD, *_BOUND.findall(when)})
    if not strangers:
        return []
    return [f"knows no {', '.join(strangers)}: the record is called {RECORD}, its fields are {RECORD}.NAME"]


def _unknown_functions(program: cel.Program) -> list[str]:
    called = (name for name in program.functions() if name.isidentifier() and not name.startswith("_"))
    strangers = sorted(set(called) - _FUNCTIONS)
    return [f"knows no function {', '.join(strangers)}: there are {', '.join(sorted(_FUNCTIONS))}"] if strangers else []


def taker(when: str) -> Taker:
    """The expression as a function. Raises `ValueError` when it does not parse: `check_when` says so better."""
    program = _compiled(when)

    def takes(record: JsonObject) -> bool:
        try:
            answer = program.execute({RECORD: record})
        except KeyError as error:
            raise RoutingError(f"the record has no {error}: ask with has({RECORD}.NAME) first") from error
        except Exception as error:  # it is the user's expression: whatever it raises is about it
            raise RoutingError(str(error).split(", so common causes")[0]) from error
        if not isinstance(answer, bool):
            raise RoutingError(f"it must say true or false, not {answer!r}"[:200])
        return answer

    return takes


@lru_cache(maxsize=256)
def _compiled(when: str) -> cel.Program:
    import cel  # noqa: PLC0415 - it brings a command line of its own along: 14 MiB that most processes never need

    return cel.compile(when)


def _first_error(text: str) -> str:
    """What the parser says, without the expression before it and the drawing after it."""
    found = re.search(r"<input>:(\d+):(\d+): (.*)", text)
    return f"column {found[2]}: {found[3]}" if found else _POINTER.sub("", text)[:200]
