"""The kinds that Headrace serves, and what the CRD of each says besides its schema."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pydantic.alias_generators import to_camel

from headrace.api import fanoutjob, inferencebatch
from headrace.api.base import ApiModel, Rule
from headrace.api.batchstatus import InferenceBatchStatus
from headrace.api.bulkhead import Bulkhead, BulkheadSpec
from headrace.api.bulkheadstatus import BulkheadStatus
from headrace.api.fanoutjob import FanOutJob, FanOutJobSpec
from headrace.api.fanoutstatus import FanOutJobStatus
from headrace.api.inferencebatch import InferenceBatch, InferenceBatchSpec
from headrace.api.meta import WorkStatus
from headrace.api.scheduledgeneration import ScheduledGeneration, ScheduledGenerationSpec
from headrace.api.schedulestatus import ScheduledGenerationStatus


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`."""

    name: str
    type: str
    json_path: str
    description: str


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object."""

    name: str
    plural: str
    short_name: str
    model: type[ApiModel]
    spec: type[ApiModel]
    status: type[ApiModel]
    columns: tuple[Column, ...]
    transition_rules: tuple[Rule, ...] = ()
    """Rules over the old and the new spec."""
    scope: Literal["Namespaced", "Cluster"] = "Namespaced"
    """Where its objects are: in a namespace each, or in none."""


def _settled(immutable: Iterable[str], noun: str) -> tuple[Rule, ...]:
    """The rules over the old and the new spec of a kind with these fields that cannot change."""
    cancel = Rule(
        cel="!oldSelf.cancel || self.cancel",
        message="cancel cannot be taken back",
        check=lambda _: True,
        field="cancel",
    )
    return (*(_unchanged(name, noun) for name in immutable), cancel)


def _unchanged(name: str, noun: str) -> Rule:
    field = to_camel(name)
    both_ways = f"self.{field} == oldSelf.{field} && oldSelf.{field} == self.{field}"  # see freeobjects.py
    return Rule(
        cel=f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || {both_ways})",
        message=f"{field} cannot be changed once the {noun} exists: make a new one under another name",
        check=lambda _: True,
        field=field,
    )


KINDS: tuple[Kind, ...] = (
    Kind(
        name="InferenceBatch",
        plural="inferencebatches",
        short_name="ib",
        model=InferenceBatch,
        spec=InferenceBatchSpec,
        status=InferenceBatchStatus,
        columns=(
            Column("State", "string", ".status.summary.state", "What the batch is doing"),
            Column("Progress", "string", ".status.summary.progress", "Records done of all records"),
            Column("Failed", "integer", ".status.records.failed", "Records that ended in an error"),
            Column("Fill", "string", ".status.summary.fill", "How full the batches are"),
            Column("ETA", "string", ".status.summary.eta", "When it should be done"),
            Column("Age", "date", ".metadata.creationTimestamp", "Time since the object was created"),
        ),
        transition_rules=_settled(inferencebatch.IMMUTABLE, "batch"),
    ),
    Kind(
        name="FanOutJob",
        plural="fanoutjobs",
        short_name="fo",
        model=FanOutJob,
        spec=FanOutJobSpec,
        status=FanOutJobStatus,
        columns=(
            Column("State", "string", ".status.summary.state", "What the fan-out is doing"),
            Column("Progress", "string", ".status.summary.progress", "Records done of all records of all branches"),
            Column("Branches", "integer", ".status.branchCounts.total", "All branches"),
            Column("Succeeded", "integer", ".status.branchCounts.succeeded", "Branches that are complete"),
            Column("Failed", "integer", ".status.records.failed", "Records that no branch has answered"),
            Column("Age", "date", ".metadata.creationTimestamp", "Time since the object was created"),
        ),
        transition_rules=_settled(fanoutjob.IMMUTABLE, "fan-out"),
    ),
    Kind(
        name="ScheduledGeneration",
        plural="scheduledgenerations",
        short_name="sg",
        model=ScheduledGeneration,
        spec=ScheduledGenerationSpec,
        status=ScheduledGenerationStatus,
        columns=(
            Column("Schedule", "string", ".spec.schedule", "When it runs"),
            Column("Zone", "string", ".spec.timeZone", "The time zone of the schedule"),
            Column("State", "string", ".status.summary.state", "What the schedule is doing"),
            Column("Active", "integer", ".status.active", "Runs that are not over"),
            Column("Next", "string", ".status.summary.next", "When the next run is due"),
            Column("Last", "date", ".status.lastScheduleTime", "Time since the last tick"),
            Column("Drift", "integer", ".status.driftSeconds", "By how many seconds the last run was begun late"),
            Column("Age", "date", ".metadata.creationTimestamp", "Time since the object was created"),
        ),
    ),
    Kind(
        name="Bulkhead",
        plural="bulkheads",
        short_name="bh",
        model=Bulkhead,
        spec=BulkheadSpec,
        status=BulkheadStatus,
        columns=(
            Column("GPUs", "string", ".status.summary.gpus", "GPUs held, of GPUs in all"),
            Column("Pods", "string", ".status.summary.pods", "Pods held, of pods in all"),
            Column("Batches", "integer", ".status.used.batches", "Batches that run"),
            Column("Waiting", "integer", ".status.waiting", "Batches that wait"),
            Column("Oldest", "date", ".status.oldestWaitTime", "How long the oldest of them has waited"),
            Column("Age", "date", ".metadata.creationTimestamp", "Time since the object was created"),
        ),
        scope="Cluster",
    ),
)


WORK_KINDS = tuple(kind for kind in KINDS if issubclass(kind.status, WorkStatus))
"""Those whose objects work on records; the others stand around them."""

OurObject: TypeAlias = InferenceBatch | FanOutJob
"""An object of any of our kinds that work on records."""
OurStatus: TypeAlias = InferenceBatchStatus | FanOutJobStatus
"""The status of any of them."""
StandingObject: TypeAlias = ScheduledGeneration | Bulkhead
"""An object of any of our other kinds."""


_IMMUTABLE = {"InferenceBatch": inferencebatch.IMMUTABLE, "FanOutJob": fanoutjob.IMMUTABLE}


def forbidden_changes(old: OurObject, new: OurObject) -> list[str]:
    """Names (camelCase) of the spec fields of an object that were changed and may not be; the CRD says the same in CEL."""
    changed = [to_camel(name) for name in _IMMUTABLE[old.kind] if getattr(old.spec, name) != getattr(new.spec, name)]
    return [*changed, "cancel"] if old.spec.cancel and not new.spec.cancel else changed


def kind_named(name: str) -> Kind | None:
    """The kind that a user means by `InferenceBatch`, `inferencebatches`, `inferencebatch` or `ib`; None when there is none."""
    wanted = name.lower()
    return next((k for k in KINDS if wanted in (k.name.lower(), k.plural, k.short_name)), None)
