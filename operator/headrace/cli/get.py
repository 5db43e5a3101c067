"""`headrace get`: objects as a table like kubectl's, or whole."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import yaml

from headrace.api.base import JsonObject
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import KINDS, Column, Kind, kind_named
from headrace.api.labels import GROUP
from headrace.cli.app import ObjectOutput, Where
from headrace.cli.exits import BAD_INPUT, CliError
from headrace.cli.place import find_batch, namespace_of, open_state
from headrace.cli.text import age, number, remark, say, say_json, table
from headrace.shells.local.state import BatchFolder, StateDir

_INTERRUPTED = "Interrupted"
"""Shown for a batch that is not finished and that no process runs: a state of this machine, which the core knows nothing of."""
_AT_REST = ("Suspended",)


def get(where: Where, kind: str, name: str | None, output: ObjectOutput, *, all_namespaces: bool) -> int:
    """Show one object, or all of a kind."""
    chosen, wanted = _understood(kind, name)
    state = open_state(where)
    if wanted is not None:
        state, folder = find_batch(where, wanted)
        _show_one(chosen, state, folder, output)
        return 0
    folders = state.batches(None if all_namespaces else namespace_of(where))
    if output in (ObjectOutput.JSON, ObjectOutput.YAML):
        _dump({"apiVersion": "v1", "kind": "List", "items": [folder.load().to_object() for folder in folders]}, output)
    elif folders:
        _show_rows(chosen, state, folders, output, with_namespace=all_namespaces)
    else:
        remark(f"no {chosen.name} in {'any namespace' if all_namespaces else f'the namespace {namespace_of(where)}'}")
    return 0


def _understood(kind: str, name: str | None) -> tuple[Kind, str | None]:
    """What `KIND`, `KIND NAME`, `KIND/NAME` and a bare `NAME` mean."""
    word, slash, rest = kind.partition("/")
    found = kind_named(word)
    if found is not None and not (slash and name):
        return found, rest or name
    if found is None and not slash and name is None:
        return KINDS[0], kind
    known = ", ".join(f"{k.name} ({k.plural}, {k.short_name})" for k in KINDS)
    raise CliError("UnknownKind", f'"{kind}" is not a kind; there are {known}', BAD_INPUT)


def _show_one(kind: Kind, state: StateDir, folder: BatchFolder, output: ObjectOutput) -> None:
    batch = folder.load()
    if output in (ObjectOutput.JSON, ObjectOutput.YAML):
        _dump(batch.to_object(), output)
    else:
        _show_rows(kind, state, [folder], output, with_namespace=False)


def _dump(data: JsonObject, output: ObjectOutput) -> None:
    if output == ObjectOutput.JSON:
        say_json(data)
    else:
        say(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120).rstrip())


def _show_rows(
    kind: Kind, state: StateDir, folders: list[BatchFolder], output: ObjectOutput, *, with_namespace: bool
) -> None:
    if output == ObjectOutput.NAME:
        say("\n".join(f"{kind.name.lower()}.{GROUP}/{folder.name}" for folder in folders))
        return
    wide = output == ObjectOutput.WIDE
    space = ("NAMESPACE",) if with_namespace else ()
    head = (*space, "NAME", *(column.name.upper() for column in kind.columns), *(_WIDE if wide else ()))
    rows = [head]
    for folder in folders:
        batch = folder.load()
        cells = [_cell(column, batch, _state(state, folder, batch)) for column in kind.columns]
        extra = _wide_cells(batch) if wide else ()
        rows.append((*((folder.namespace,) if with_namespace else ()), folder.name, *cells, *extra))
    say(table(rows))


_WIDE = ("SHARDS", "RECORDS/S", "MODEL", "OUTPUT")


def _wide_cells(batch: InferenceBatch) -> tuple[str, ...]:
    status = batch.status
    shards = f"{status.shards.succeeded}/{status.shards.total}" if status.shards.total else ""
    speed = number(float(status.records_per_second)) if status.records_per_second else ""
    return (shards, speed, batch.spec.model.name, status.output.uri if status.output is not None else "")


def _state(state: StateDir, folder: BatchFolder, batch: InferenceBatch) -> str:
    said = batch.status.summary.state
    if batch.status.finished or said in _AT_REST or state.runner(folder) is not None:
        return said
    return _INTERRUPTED


def _cell(column: Column, batch: InferenceBatch, state: str) -> str:
    if column.name == "State":
        return state
    value: Any = batch.to_object()
    for step in column.json_path.strip(".").split("."):
        value = value.get(step) if isinstance(value, dict) else None
    if column.type == "date":
        return age(batch.metadata.creation_timestamp, datetime.now(UTC)) if value else ""
    return "" if value is None else str(value)
