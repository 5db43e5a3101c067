"""`headrace get`: objects as a table like kubectl's, or whole; with --watch also what becomes of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence

import yaml

from headrace.api.kinds import KINDS, WORK_KINDS, Kind, kind_named
from headrace.api.labels import GROUP
from headrace.cli.dump import dump
from headrace.cli.exits import BAD_INPUT, CliError
from headrace.cli.options import ObjectOutput, Where
from headrace.cli.place import named_batch, open_target
from headrace.cli.rows import Columns, GrowingTable
from headrace.cli.standing import get_standing
from headrace.cli.target import Ref, Seen
from headrace.cli.text import remark, say, table

_TABLES = (ObjectOutput.TABLE, ObjectOutput.WIDE)


def get(where: Where, kind: str, name: str | None, output: ObjectOutput, *, all_namespaces: bool, watch: bool) -> int:
    """Show one object, or all of a kind."""
    chosen, wanted = _understood(kind, name)
    if chosen not in WORK_KINDS:
        return get_standing(where, chosen, wanted, output, all_namespaces=all_namespaces, watch=watch)
    with open_target(where) as target:
        ref = named_batch(target, wanted) if wanted is not None else None
        namespace = None if all_namespaces and ref is None else target.namespace
        if ref is not None:
            chosen = _kind_of(target.find(ref), chosen, kind)
        columns = Columns(chosen, output == ObjectOutput.WIDE, with_namespace=all_namespaces and wanted is None)
        if watch:
            # One that is named must be there: nobody waits for what has a slip in its name.
            first = [target.find(ref)] if ref is not None else target.find_all(namespace, chosen)
            lines = GrowingTable([columns.head, *map(columns.row, first)])
            _follow(target.watch(namespace, ref and ref.name, chosen), columns, lines, output)
        elif ref is not None:
            _show_one(target.find(ref), columns, output)
        else:
            _show_all(target.find_all(namespace, chosen), columns, output, namespace)
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


def _kind_of(seen: Seen, asked: Kind, word: str) -> Kind:
    """The kind of an object that is named, which must be the one that was asked for, if any was."""
    found = kind_named(seen.batch.kind)
    assert found is not None
    if found is not asked and kind_named(word.partition("/")[0]) is not None:
        name = seen.batch.metadata.name
        raise CliError("NotFound", f"there is no {asked.name} {name}: it is a {found.name}")
    return found


def _show_one(seen: Seen, columns: Columns, output: ObjectOutput) -> None:
    if output in (ObjectOutput.JSON, ObjectOutput.YAML):
        dump(seen.batch.to_object(), output)
    else:
        _show_rows([seen], columns, output)


def _show_all(found: Sequence[Seen], columns: Columns, output: ObjectOutput, namespace: str | None) -> None:
    if output in (ObjectOutput.JSON, ObjectOutput.YAML):
        dump({"apiVersion": "v1", "kind": "List", "items": [seen.batch.to_object() for seen in found]}, output)
    elif found:
        _show_rows(found, columns, output)
    else:
        place = "any namespace" if namespace is None else f"the namespace {namespace}"
        remark(f"no {columns.kind.name} in {place}")


def _show_rows(found: Sequence[Seen], columns: Columns, output: ObjectOutput) -> None:
    if output == ObjectOutput.NAME:
        say("\n".join(_full_name(seen, columns) for seen in found))
    else:
        say(table([columns.head, *(columns.row(seen) for seen in found)]))


def _follow(stream: Iterable[Seen], columns: Columns, lines: GrowingTable, output: ObjectOutput) -> None:
    """Show each object, and again whenever what is shown of it has changed: a row, a line of JSON, a YAML document."""
    shown: dict[Ref, object] = {}
    for seen in stream:
        row, ref = columns.row(seen), Ref.of(seen.batch)
        news = columns.without_age(row) if output in _TABLES else (seen.state == "Deleted", seen.batch)
        if shown.get(ref) == news:
            continue
        if output in _TABLES and not shown:
            say(lines.line(columns.head))
        shown[ref] = news
        say(lines.line(row) if output in _TABLES else _document(seen, columns, output))
        sys.stdout.flush()


def _document(seen: Seen, columns: Columns, output: ObjectOutput) -> str:
    if output == ObjectOutput.NAME:
        return _full_name(seen, columns)
    if output == ObjectOutput.JSON:
        return json.dumps(seen.batch.to_object(), ensure_ascii=False)
    return "---\n" + yaml.safe_dump(seen.batch.to_object(), sort_keys=False, allow_unicode=True, width=120).rstrip()


def _full_name(seen: Seen, columns: Columns) -> str:
    return f"{columns.kind.name.lower()}.{GROUP}/{seen.batch.metadata.name}"
