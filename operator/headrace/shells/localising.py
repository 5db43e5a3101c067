"""Objects for this machine: paths in them that are relative to their file become absolute `file://` URIs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from headrace.api.base import FieldError, JsonObject
from headrace.api.scheduledgeneration import ScheduledGeneration

_LOCAL_FIELDS = (
    ("input", "uri"),
    ("output", "uri"),
    ("evaluation", "reference"),
    ("resumeFrom", "uri"),
    ("dedup", "cacheUri"),
)
_GLOB_SAFE = "/*?"
"""Left as they are in a path that becomes a URI: the stars of a glob keep their meaning."""


def on_this_machine(data: JsonObject, folder: Path) -> list[FieldError]:
    """Make paths absolute that are relative to the manifest's folder; names URIs that cannot mean a file here."""
    return [error for at, spec in work_specs(data) for error in _localise(spec, at, folder)]


def work_specs(data: JsonObject) -> list[tuple[str, Any]]:
    """The specs in an object of what is to be run, whatever they hold: its own, or those of a schedule's template; with their paths."""
    spec = data.get("spec")
    template = spec.get("template") if isinstance(spec, dict) else None
    if data.get("kind") == ScheduledGeneration.__name__ and isinstance(template, dict):
        return [(f"spec.template.{name}", part) for name, part in template.items()]
    return [("spec", spec)]


def _localise(spec: Any, at: str, folder: Path) -> list[FieldError]:
    errors = []
    for path, part, key in _local_uris(spec, at):
        uri = part.get(key)
        if not isinstance(uri, str) or not uri:
            continue
        if re.match(r"file:(?!///)", uri):
            hint = "must be file:// and an absolute path, or a path relative to this file without file:"
            errors.append(FieldError(f"{path}.{key}", f'{hint}, not "{uri}"'))
        elif "://" not in uri:
            part[key] = f"file://{_quoted(_absolute(uri, folder))}"
    localise_works(spec, folder)
    return errors


def localise_works(spec: Any, folder: Path) -> None:
    """Make the paths of all weights in a spec absolute: its own, those of its branches, and those of what joins them."""
    for _, work in _works(spec, ""):
        localise_model(work, folder)
        localise_model(_embedding(work), folder)
    for part in _objects_in(spec.get("aggregation") if isinstance(spec, dict) else None):
        localise_model(part, folder)


def _works(spec: Any, at: str) -> Iterator[tuple[str, Any]]:
    """A spec, and the branches in it, with their paths."""
    yield at, spec
    branches = spec.get("branches") if isinstance(spec, dict) else None
    for index, branch in enumerate(branches if isinstance(branches, list) else ()):
        yield f"{at}.branches[{index}]", branch


def _local_uris(spec: Any, at: str) -> Iterator[tuple[str, JsonObject, str]]:
    """Each object in a spec that may hold a path of this machine, with its own path, and the name of the field."""
    for work_at, work in _works(spec, at):
        for field, key in _LOCAL_FIELDS:
            part = work.get(field) if isinstance(work, dict) else None
            if isinstance(part, dict):
                yield f"{work_at}.{field}", part, key


def _embedding(work: Any) -> Any:
    """The model of an evaluation, if there is one."""
    evaluation = work.get("evaluation") if isinstance(work, dict) else None
    return evaluation.get("embedding") if isinstance(evaluation, dict) else None


def _quoted(path: str) -> str:
    """A path as it stands in a URI; what a schedule fills in is left as it is."""
    parts = re.split(r"(\{\{.*?\}\})", path)
    return "".join(part if part.startswith("{{") else quote(part, safe=_GLOB_SAFE) for part in parts)


def _objects_in(part: Any) -> Iterator[JsonObject]:
    """Every object in a part of a manifest."""
    todo = [part]
    while todo:
        found = todo.pop()
        if isinstance(found, dict):
            yield found
        todo.extend(found.values() if isinstance(found, dict) else found if isinstance(found, list) else ())


def localise_model(spec: Any, folder: Path) -> None:
    """Make the path of a model's weights absolute, if that is where they are."""
    model = spec.get("model") if isinstance(spec, dict) else None
    source = model.get("source") if isinstance(model, dict) else None
    if isinstance(source, dict) and isinstance(source.get("path"), str) and source["path"]:
        source["path"] = _absolute(source["path"], folder)


def _absolute(path: str, folder: Path) -> str:
    """An absolute path; a slash at the end stays, for it says that a folder is meant."""
    return os.path.abspath(folder / path) + ("/" if path.endswith("/") else "")
