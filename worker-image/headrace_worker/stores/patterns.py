"""Globs in URIs: `*` and `?` stay inside one name, `**` spans folders. An escaped `%2A` or `%3F` is the character itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote


def is_glob(uri: str) -> bool:
    """Whether a URI stands for whatever matches it."""
    return "*" in uri or "?" in uri


def fixed_part(pattern: str) -> str:
    """The folder that every match of a glob lies in, as it is written; a URI that is no glob is all fixed."""
    wild = re.search(r"[*?]", pattern)
    return pattern if wild is None else pattern[: pattern.rindex("/", 0, wild.start()) + 1]


def matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a name (unescaped, relative to the fixed part) matches the rest of a glob."""
    rest = pattern.removeprefix(fixed_part(pattern))
    expression = re.compile("".join(map(_translated, re.findall(r"\*\*/|\*\*|[*?]|[^*?]+", rest))), re.DOTALL)
    return lambda name: expression.fullmatch(name) is not None


_WILD = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _translated(piece: str) -> str:
    return _WILD.get(piece) or re.escape(unquote(piece))
