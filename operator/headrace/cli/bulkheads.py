"""`headrace get bulkheads`: they are in no namespace, and in a cluster alone."""

from __future__ import annotations

from headrace.api.bulkhead import Bulkhead
from headrace.api.kinds import Kind
from headrace.api.labels import GROUP
from headrace.cli.app import ObjectOutput, Where
from headrace.cli.dump import dump
from headrace.cli.exits import BAD_INPUT, CliError
from headrace.cli.place import open_target
from headrace.cli.rows import cell
from headrace.cli.text import remark, say, table


def get_bulkheads(where: Where, kind: Kind, name: str | None, output: ObjectOutput, *, watch: bool) -> int:
    """Show one, or all."""
    if watch:
        message = f"a {kind.name} cannot be watched here: kubectl get {kind.plural} --watch"
        raise CliError("NotSupported", message, BAD_INPUT)
    with open_target(where) as target:
        found = [one for one in target.bulkheads() if name in (None, one.name)]
    if name is not None and not found:
        raise CliError("NotFound", f"there is no {kind.name} {name}")
    if output in (ObjectOutput.JSON, ObjectOutput.YAML):
        items = [one.to_object() for one in found]
        dump(items[0] if name is not None else {"apiVersion": "v1", "kind": "List", "items": items}, output)
    elif output == ObjectOutput.NAME:
        say("\n".join(f"{kind.name.lower()}.{GROUP}/{one.name}" for one in found))
    elif found:
        head = ("NAME", *(column.name.upper() for column in kind.columns))
        say(table([head, *(_row(kind, one) for one in found)]))
    else:
        remark(f"no {kind.name}")
    return 0


def _row(kind: Kind, bulkhead: Bulkhead) -> tuple[str, ...]:
    return (bulkhead.name, *(cell(column, bulkhead.to_object()) for column in kind.columns))
