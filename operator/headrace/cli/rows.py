"""Objects as rows of a table: the columns of a kind as kubectl shows them, and some more when there is room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from headrace.api.base import JsonObject
from headrace.api.fanoutjob import FanOutJob
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import Column, Kind, OurObject
from headrace.api.reasons import ConditionType
from headrace.cli.target import Seen
from headrace.cli.text import age, number

_WIDE = ("SHARDS", "RECORDS/S", "EVENNESS", "STRAGGLERS", "F1", "DRIFT", "MODEL", "OUTPUT")
_GAP = "   "


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns."""

    kind: Kind
    wide: bool
    with_namespace: bool

    @property
    def head(self) -> tuple[str, ...]:
        """Their names."""
        space = ("NAMESPACE",) if self.with_namespace else ()
        return (*space, "NAME", *(column.name.upper() for column in self.kind.columns), *(_WIDE if self.wide else ()))

    def row(self, seen: Seen) -> tuple[str, ...]:
        """What they say of an object."""
        batch = seen.batch
        space = (batch.metadata.namespace,) if self.with_namespace else ()
        cells = (_cell(column, seen) for column in self.kind.columns)
        return (*space, batch.metadata.name, *cells, *(_wide_cells(batch) if self.wide else ()))

    def without_age(self, row: tuple[str, ...]) -> tuple[str, ...]:
        """What is news when it changes."""
        return tuple(cell for name, cell in zip(self.head, row, strict=True) if name != "AGE")


class GrowingTable:
    """A table whose rows come one by one: a column grows as wide as its widest cell so far."""

    def __init__(self, first: Sequence[tuple[str, ...]]) -> None:
        """With room for some rows, which are not lines yet."""
        self._widths = [max(map(len, column)) for column in zip(*first, strict=True)]

    def line(self, row: tuple[str, ...]) -> str:
        """The next line."""
        self._widths = [max(width, len(cell)) for cell, width in zip(row, self._widths, strict=True)]
        return _GAP.join(cell.ljust(width) for cell, width in zip(row, self._widths, strict=True)).rstrip()


def _wide_cells(batch: OurObject) -> tuple[str, ...]:
    if isinstance(batch, FanOutJob):
        return _wide_cells_of_fan_out(batch)
    status = batch.status
    shards = f"{status.shards.succeeded}/{status.shards.total}" if status.shards.total else ""
    speed = number(float(status.records_per_second)) if status.records_per_second else ""
    return (
        shards,
        speed,
        *_evenness(batch),
        _f1(batch),
        _drift(batch),
        batch.spec.model.name,
        status.output.uri if status.output is not None else "",
    )


def _wide_cells_of_fan_out(fan_out: FanOutJob) -> tuple[str, ...]:
    status, models = fan_out.status, sorted({branch.model.name for branch in fan_out.spec.branches})
    output = status.output.uri if status.output is not None else ""
    return ("", "", *_evenness(fan_out), "", _drift(fan_out), ", ".join(models), output)


def _evenness(batch: OurObject) -> tuple[str, str]:
    percent = batch.status.evenness_percent
    return (f"{percent}%" if percent is not None else "", ",".join(batch.status.stragglers))


def _f1(batch: InferenceBatch) -> str:
    found = batch.status.evaluation
    return found.scores.f1 if found is not None and found.scores is not None else ""


def _drift(batch: OurObject) -> str:
    """Whether it has drifted from its reference: True, False or Unknown."""
    found = batch.status.condition(ConditionType.DATA_DRIFT)
    return found.status if found is not None else ""


def _cell(column: Column, seen: Seen) -> str:
    if column.name == "State":
        return seen.state
    return cell(column, seen.batch.to_object())


def cell(column: Column, obj: JsonObject) -> str:
    """What a column says of an object."""
    value: Any = obj
    for step in column.json_path.strip(".").split("."):
        value = value.get(step) if isinstance(value, dict) else None
    if column.type == "date":
        return age(datetime.fromisoformat(value), datetime.now(UTC)) if value else ""
    return "" if value is None else str(value)
