"""YAML and JSON files as documents that still know on which line each field stands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from headrace.api.base import FieldError
from headrace.shells.problems import ManifestError, Problem
from headrace.shells.yaml_dialect import Node, check_nodes, load_nodes, syntax_problem

_STEP = re.compile(r"\[(\d+)\]|\[(\"(?:[^\"\\]|\\.)*\")\]|([^.\[\]]+)")
"""One step of a path: an index, a name in brackets and quotes, or a plain name."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file."""

    data: Any
    file: str
    """As the user wrote it."""
    folder: Path
    """What relative paths are relative to."""
    node: Node | None = None
    """The document with its line numbers; None when they could not be found out."""

    def refuse(self, faults: Iterable[FieldError]) -> None:
        """Raise a `ManifestError` with the line of each fault, if there is any."""
        problems = [Problem(it.message, self.file, self.line_of(it.field), field=it.field or None) for it in faults]
        if problems:
            raise ManifestError(*problems)

    def line_of(self, path: str) -> int | None:
        """Line, from 1, of the field at a path such as `spec.input.inline[3].body`, or of the deepest part that is there."""
        if self.node is None:
            return None
        return cast("int", _descend(self.node, path).start_mark.line) + 1


def one_document(file: Path, field: str) -> Document:
    """The one object in a file of settings, of which `field` is a field. Raises `ManifestError`."""
    try:
        documents = parse_documents(file.read_bytes(), str(file), file.absolute().parent)
    except OSError as error:
        raise ManifestError(Problem(f"cannot be read: {error.strerror}", str(file))) from error
    if len(documents) != 1 or not isinstance(documents[0].data, dict):
        raise ManifestError(Problem(f"must be one object with the field {field}", str(file)))
    return documents[0]


def parse_documents(raw: bytes, file: str, folder: Path) -> list[Document]:
    """The documents of one file; empty ones are left out. Raises `ManifestError`."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(Problem(f"byte {error.start} is not UTF-8", file)) from error
    if file.endswith(".json") or text.lstrip().startswith("{"):
        document = _json_document(text, file, folder)
        if document is not None:
            return [document]
    return [document for document in _yaml_documents(text, file, folder) if document.data is not None]


def _json_document(text: str, file: str, folder: Path) -> Document | None:
    """A file of one JSON document; None for a file that may still be YAML."""
    try:
        nodes = [node for node, _ in load_nodes(text, file)]
    except ManifestError:
        nodes = []  # JSON that is no YAML for PyYAML, such as one indented by tabs: it is read without line numbers
    node = nodes[0] if len(nodes) == 1 else None
    if node is not None:
        check_nodes(node, file)
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        if not file.endswith(".json"):
            return None
        raise ManifestError(Problem(f"not valid JSON: {error.msg}", file, error.lineno, error.colno)) from error
    except (ValueError, RecursionError) as error:
        raise ManifestError(Problem(str(error), file)) from error
    return Document(data, file, folder, node)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key} is given twice in one object")
        found[key] = value
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _yaml_documents(text: str, file: str, folder: Path) -> Iterator[Document]:
    for node, loader in load_nodes(text, file):
        check_nodes(node, file)
        try:
            data = loader.construct_document(node)
        except yaml.MarkedYAMLError as error:
            raise ManifestError(syntax_problem(error, file)) from error
        except ValueError as error:
            raise ManifestError(Problem(str(error), file)) from error
        yield Document(data, file, folder, node)


def _descend(node: Node, path: str) -> Node:
    """The node of the field at a path; for a mapping's entry its key, so that the line is that of the field's name."""
    shown: Node = node
    for index, quoted, plain in _STEP.findall(path):
        name = json.loads(quoted) if quoted else plain
        if isinstance(node, yaml.MappingNode) and name:
            entry = next(((key, value) for key, value in node.value if key.value == name), None)
            if entry is None:
                break
            shown, node = entry
        elif isinstance(node, yaml.SequenceNode) and index and int(index) < len(node.value):
            shown = node = node.value[int(index)]
        else:
            break
    return shown
