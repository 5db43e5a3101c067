"""`headrace get` of objects that do not run themselves: Bulkheads and ScheduledGenerations. They are in a cluster alone."""

from __future__ import annotations

from headrace.api.base import JsonObject
from headrace.api.kinds import Kind
from headrace.api.labels import GROUP
from headrace.cli.dump import dump
from headrace.cli.exits import BAD_INPUT, CliError
from headrace.cli.options import ObjectOutput, Where
from headrace.cli.place import open_target
from headrace.cli.rows import cell
from headrace.cli.text import remark, say, table


def get_standing(
    where: Where, kind: Kind, name: str | None, output: ObjectOutput, *, all_namespaces: bool, watch: bool
) -> int:
    """Show one, or all."""
    if watch:
        message = f"a {kind.name} cannot be watched here: kubectl get {kind.plural} --watch"
        raise CliError("NotSupported", message, BAD_INPUT)
    with open_target(where) as target:
        namespace = None if all_namespaces or kind.scope == "Cluster" else target.namespace
        found = [one.to_object() for one in target.standing(kind, namespace) if name in (None, one.metadata.name)]
    if name is not None and not found:
        raise CliError("NotFound", f"there is no {kind.name} {name}")
    if output in (ObjectOutput.JSON, ObjectOutput.YAML):
        dump(found[0] if name is not None else {"apiVersion": "v1", "kind": "List", "items": found}, output)
    elif output == ObjectOutput.NAME:
        say("\n".join(f"{kind.name.lower()}.{GROUP}/{one['metadata']['name']}" for one in found))
    elif found:
        spaced = namespace is None and kind.scope == "Namespaced"
        head = (*(("NAMESPACE",) if spaced else ()), "NAME", *(column.name.upper() for column in kind.columns))
        say(table([head, *(_row(kind, one, spaced=spaced) for one in found)]))
    else:
        remark(f"no {kind.name}")
    return 0


def _row(kind: Kind, obj: JsonObject, *, spaced: bool) -> tuple[str, ...]:
    space = (obj["metadata"]["namespace"],) if spaced else ()
    return (*space, obj["metadata"]["name"], *(cell(column, obj) for column in kind.columns))
