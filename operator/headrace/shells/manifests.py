"""From files to objects: what `-f` takes, checked as an API server would, with the line of everything that is wrong.

Beyond our own kinds a file may hold ConfigMaps, for `spec.input.configMapRef`. Before an object is checked, `Adapt` may change
it for the place where it will run: `on_this_machine` turns paths relative to the file into absolute `file://` URIs.
"""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from headrace.api.base import ApiModel, FieldError, InvalidSpec, JsonObject
from headrace.api.fanoutjob import FanOutJob
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import OurObject
from headrace.api.labels import API_VERSION
from headrace.api.meta import ObjectMeta
from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.shells.documents import Document, parse_documents
from headrace.shells.problems import ManifestError, Problem

Adapt = Callable[[JsonObject, Path], list[FieldError]]
"""Changes an object for the place where it will run, given the folder of its file; says what cannot be."""

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


FileName = Annotated[str, Field(pattern=r"^\.?[-_a-zA-Z0-9][-._a-zA-Z0-9]{0,252}$")]
"""A key of a ConfigMap, which becomes the name of a file."""


class ConfigMap(ApiModel):
    """Small files by name; `v1` of Kubernetes, as far as inputs need it."""

    api_version: Literal["v1"] = "v1"
    kind: Literal["ConfigMap"] = "ConfigMap"
    metadata: ObjectMeta
    data: dict[FileName, str] = Field(default_factory=dict)
    """Files of UTF-8 text."""
    binary_data: dict[FileName, Annotated[str, Field(pattern=r"^[A-Za-z0-9+/\s]*={0,2}\s*$")]] = Field(
        default_factory=dict
    )
    """Files of any bytes, in base64."""
    immutable: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """Where an object was written down."""

    document: Document
    prefix: str
    """Path of the object in its document: empty, or such as `items[2].`."""
    title: str
    """Kind and name."""
    spec: str = "spec"
    """Where in the object the spec is of what is to be run."""

    def problem(self, error: FieldError) -> Problem:
        """What is wrong with the object, with the line of the field."""
        field = re.sub(r"^spec\b", self.spec, error.field)
        line = self.document.line_of(self.prefix + field)
        return Problem(error.message, self.document.file, line, None, self.title, field or None)


@dataclass(frozen=True, slots=True)
class LoadedBatch:
    """An InferenceBatch or a FanOutJob, and where it was written down."""

    batch: OurObject
    source: Source


@dataclass(frozen=True, slots=True)
class LoadedSchedule:
    """A ScheduledGeneration, and where it was written down."""

    schedule: ScheduledGeneration
    source: Source


@dataclass(frozen=True, slots=True)
class Manifests:
    """All objects of some files, in their order."""

    batches: tuple[LoadedBatch, ...] = ()
    schedules: tuple[LoadedSchedule, ...] = ()
    config_maps: tuple[ConfigMap, ...] = ()


def load(
    files: Iterable[str],
    namespace: str | None = None,
    adapt: Adapt | None = None,
    *,
    default_namespace: str = "default",
) -> Manifests:
    """The objects in these files; `-` is standard input, a folder means the manifests in it.

    `namespace` is that of objects that name none (without it, `default_namespace`), and must be that of those which do.
    Raises `ManifestError` with everything that is wrong in all of the files.
    """
    documents = [document for file in files for document in _read(file)]
    problems: list[Problem] = []
    batches: dict[str, LoadedBatch] = {}
    schedules: dict[str, LoadedSchedule] = {}
    config_maps: dict[str, ConfigMap] = {}
    for source, data in _objects(documents, problems):
        found = [] if adapt is None or data.get("kind") == "ConfigMap" else adapt(data, source.document.folder)
        if isinstance(data.get("metadata"), dict):
            data["metadata"].setdefault("namespace", namespace or default_namespace)
        parsed = _parse(data, namespace, found)
        problems += map(source.problem, found)
        if parsed is None:
            continue
        key = f"{parsed.metadata.namespace}/{parsed.metadata.name}"
        if isinstance(parsed, InferenceBatch | FanOutJob):
            twice, batches[key] = key in batches, LoadedBatch(parsed, source)
        elif isinstance(parsed, ScheduledGeneration):
            twice, schedules[key] = key in schedules, LoadedSchedule(parsed, source)
        else:
            twice, config_maps[key] = key in config_maps, parsed
        if twice:
            problems.append(source.problem(FieldError("metadata.name", "there are two of that name in these files")))
    if problems:
        raise ManifestError(*problems)
    return Manifests(tuple(batches.values()), tuple(schedules.values()), tuple(config_maps.values()))


def check_namespace(namespace: str) -> str:
    """The namespace, which becomes part of paths; raises `ManifestError` when it cannot be one."""
    if not DNS_LABEL.fullmatch(namespace):
        raise ManifestError(Problem(f'"{namespace}" is not a namespace: {_NAMESPACE_FORM}'))
    return namespace


_NAMESPACE_FORM = "must be at most 63 lower-case letters, digits and dashes, and begin and end with a letter or digit"


def _read(file: str) -> Sequence[Document]:
    path = Path(file)
    try:
        if file == "-":
            return parse_documents(sys.stdin.buffer.read(), "<stdin>", Path.cwd())
        if path.is_dir():
            names = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml", ".json"))
            return [document for name in names for document in _read(str(name))]
        return parse_documents(path.read_bytes(), file, path.absolute().parent)
    except OSError as error:
        raise ManifestError(Problem(f"cannot be read: {error.strerror}", file)) from error


def _objects(documents: Iterable[Document], problems: list[Problem]) -> Iterator[tuple[Source, JsonObject]]:
    """Every object in the documents, Lists taken apart, with copies of its data."""
    for document in documents:
        for prefix, data in _items(document):
            if not isinstance(data, dict):
                line = document.line_of(prefix)
                problems.append(
                    Problem("must be an object with apiVersion, kind, metadata and spec", document.file, line)
                )
                continue
            yield Source(document, prefix, _title(data)), copy.deepcopy(data)


def _items(document: Document) -> list[tuple[str, Any]]:
    data = document.data
    if isinstance(data, dict) and data.get("kind") == "List" and isinstance(data.get("items"), list):
        return [(f"items[{i}].", item) for i, item in enumerate(data["items"])]
    return [("", data)]


def _title(data: JsonObject) -> str:
    metadata = data.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return f"{data.get('kind', 'object')} {name}" if isinstance(name, str) else str(data.get("kind", "object"))


_MODELS: dict[tuple[Any, Any], type[InferenceBatch] | type[FanOutJob] | type[ScheduledGeneration] | type[ConfigMap]] = {
    (API_VERSION, "InferenceBatch"): InferenceBatch,
    (API_VERSION, "FanOutJob"): FanOutJob,
    (API_VERSION, "ScheduledGeneration"): ScheduledGeneration,
    ("v1", "ConfigMap"): ConfigMap,
}


def _parse(
    data: JsonObject, namespace: str | None, found: list[FieldError]
) -> OurObject | ScheduledGeneration | ConfigMap | None:
    """The object; None when it has errors, which are added to `found`."""
    model = _MODELS.get((data.get("apiVersion"), data.get("kind")))
    if model is None:
        found.append(_unknown_kind(data))
        return None
    metadata = data.get("metadata")
    if isinstance(metadata, dict):
        found += _settle_namespace(metadata, namespace)
        for written_by_the_server in ("uid", "generation", "resourceVersion", "creationTimestamp", "deletionTimestamp"):
            metadata.pop(written_by_the_server, None)
    data.pop("status", None)
    try:
        parsed = model.parse(data)
    except InvalidSpec as error:
        known = {e.field for e in found}
        found += [e for e in error.errors if e.field not in known]
        return None
    return None if found else parsed


def _settle_namespace(metadata: JsonObject, wanted: str | None) -> list[FieldError]:
    named = metadata["namespace"]
    if not isinstance(named, str):
        return []
    if wanted is not None and named != wanted:
        return [FieldError("metadata.namespace", f"is {named}, but --namespace says {wanted}")]
    return [] if DNS_LABEL.fullmatch(named) else [FieldError("metadata.namespace", f'{_NAMESPACE_FORM}, not "{named}"')]


def _unknown_kind(data: JsonObject) -> FieldError:
    known = ", ".join(f"{kind} ({version})" for version, kind in (*_MODELS, ("v1", "List")))
    if data.get("kind") in {kind for _, kind in _MODELS}:
        return FieldError("apiVersion", f'"{data.get("apiVersion")}" is not known for this kind; known are {known}')
    if data.get("kind") == "Bulkhead":
        return FieldError("kind", "a Bulkhead is nothing to be run: kubectl apply -f it to a cluster")
    shown = f'"{data["kind"]}" is not known here' if "kind" in data else "required"
    return FieldError("kind", f"{shown}; known are {known}")
