"""YAML as `kubectl apply` reads it: dates and `12:30` stay text, `1e-5` is a number, and all of it is JSON in the end."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, TypeAlias

import yaml
from yaml.reader import ReaderError

from headrace.shells.problems import ManifestError, Problem

Node: TypeAlias = yaml.MappingNode | yaml.SequenceNode | yaml.ScalarNode

MAX_NODES = 1_000_000
"""Values in one document, aliases counted as often as they are used."""
MAX_DEPTH = 200
"""Lists and objects inside each other."""

_TAG = "tag:yaml.org,2002:"
_RESOLVERS = (
    ("bool", r"y|Y|n|N|yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO"),
    ("int", r"[-+]?(0|[1-9][0-9]*|0[0-7]+|0x[0-9a-fA-F]+|0b[01]+)", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.inf|\.nan", "-+."),
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("merge", r"<<", "<"),
)
_KNOWN_TAGS = frozenset(_TAG + name for name in ("bool", "int", "float", "null", "merge", "str", "seq", "map"))


class _PureLoader(yaml.SafeLoader):
    """PyYAML's safe loader with kubectl's idea of numbers and dates."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's way to say that nothing is inherited


class _FastLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The same, ten times as fast, where libyaml is there."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012


for _loader in (_PureLoader, _FastLoader):
    _loader.bool_values = {**yaml.SafeLoader.bool_values, "y": True, "n": False}
for _name, _pattern, _first in _RESOLVERS:
    for _loader in (_PureLoader, _FastLoader):
        _loader.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), list(_first))


def load_nodes(text: str, file: str) -> list[tuple[Node, Any]]:
    """The root nodes of all documents in a text, each with the loader that can construct it. Raises `ManifestError`."""
    try:
        _check_depth(text, file)
        return _compose(_FastLoader, text)
    except yaml.YAMLError:
        pass  # read again: libyaml words its errors differently, and refuses some things that are well-formed
    try:
        return _compose(_PureLoader, text)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ManifestError(Problem("a character here may not be in a YAML file", file, line)) from error
    except yaml.MarkedYAMLError as error:
        raise ManifestError(syntax_problem(error, file)) from error
    except RecursionError as error:
        raise ManifestError(Problem("nested too deeply", file)) from error


def _check_depth(text: str, file: str) -> None:
    """Refuse what is nested so deeply that libyaml would run out of stack and take the process with it."""
    depth = 0
    for event in yaml.parse(text, Loader=_FastLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ManifestError(Problem("nested too deeply", file))


def _compose(loader_class: Any, text: str) -> list[tuple[Node, Any]]:
    loader, nodes = loader_class(text), []
    while loader.check_node():
        nodes.append((loader.get_node(), loader))
    return nodes


def syntax_problem(error: yaml.MarkedYAMLError, file: str) -> Problem:
    """What PyYAML has to say."""
    mark = error.problem_mark or error.context_mark
    said = ", ".join(part for part in (error.context, error.problem) if part)
    if mark is None:
        return Problem(f"not valid YAML: {said}", file)
    return Problem(f"not valid YAML: {said}", file, mark.line + 1, mark.column + 1)


def check_nodes(root: Node, file: str) -> None:
    """Refuse what JSON has no words for: other types, keys that are no text, keys given twice, aliases without end.

    Raises `ManifestError` with the line.
    """
    for seen, node in enumerate(_walk(root, frozenset(), file)):
        mark = node.start_mark
        if seen > MAX_NODES:
            raise ManifestError(Problem(f"more than {MAX_NODES} values in one document", file))
        if node.tag not in _KNOWN_TAGS:
            shown = node.tag.replace(_TAG, "!!")
            raise ManifestError(Problem(f"the YAML tag {shown} has no meaning here", file, mark.line + 1))
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, file)
        elif isinstance(node, yaml.ScalarNode):
            _check_scalar(node, file)


def _walk(node: Node, above: frozenset[int], file: str) -> Iterator[Node]:
    if id(node) in above or len(above) > MAX_DEPTH:
        raise ManifestError(Problem("an alias that contains itself, or values nested too deeply", file))
    yield node
    if isinstance(node, yaml.ScalarNode):
        return
    inside = above | {id(node)}
    for item in node.value:
        for part in item if isinstance(node, yaml.MappingNode) else (item,):
            yield from _walk(part, inside, file)


def _check_keys(node: yaml.MappingNode, file: str) -> None:
    first: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or key.tag not in (f"{_TAG}str", f"{_TAG}merge"):
            shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or an object"
            raise ManifestError(Problem(f"the key {shown} is not text: put it in quotes", file, line))
        if key.value in first and key.tag != f"{_TAG}merge":
            message = f"the key {key.value} is given twice: first on line {first[key.value]}"
            raise ManifestError(Problem(message, file, line))
        first[key.value] = line


def _check_scalar(node: yaml.ScalarNode, file: str) -> None:
    line = node.start_mark.line + 1
    if node.tag == f"{_TAG}float" and not _is_finite(node.value):
        raise ManifestError(Problem(f"{node.value} is not a number that JSON knows", file, line))
    if any("\ud800" <= char <= "\udfff" for char in node.value):
        try:  # two escapes of a JSON string that mean one character
            node.value = node.value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError as error:
            raise ManifestError(Problem("an escape that is half a character", file, line)) from error


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:  # `.inf`, `.nan`, and whatever else was tagged as a float by hand
        return False
