"""What `reconcile` answers: the children there should be, the status there should be, and when to look again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, Literal

from typing_extensions import TypeVar

from headrace.api.base import ApiModel, JsonObject
from headrace.api.batchstatus import InferenceBatchStatus

S_co = TypeVar("S_co", bound=ApiModel, covariant=True, default=InferenceBatchStatus)
"""The status of the kind that is planned for; that of an InferenceBatch unless another is said."""


@dataclass(frozen=True, slots=True)
class Event:
    """A transition worth telling the user; emitted after the status that shows it has been written."""

    reason: str
    message: str
    type: Literal["Normal", "Warning"] = "Normal"


@dataclass(frozen=True, slots=True)
class Activation:
    """What is to be asked of a Workload of Kueue, which is not ours."""

    name: str
    uid: str
    active: bool
    """Whether it may be admitted. What is made inactive is marked, so that only that is made active again."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What is to be written into the status of a Job that another controller has made, and that is ours to begin and to end."""

    namespace: str
    name: str
    uid: str
    status: JsonObject


@dataclass(frozen=True, slots=True)
class Plan(Generic[S_co]):
    """The whole answer. Applying it twice changes nothing the second time.

    `children` are manifests with the fields that we own and no others. An observed child that is not among them is deleted;
    None leaves the children as they are (a finished batch keeps its Jobs for their logs).
    Of a child that exists, only the fields that `headrace.core.changes` names are ever patched.
    """

    status: S_co
    children: tuple[JsonObject, ...] | None = ()
    events: tuple[Event, ...] = ()
    look_again_after: timedelta | None = None
    """Latest next look when nothing happens; None: only when something happens."""
    activations: tuple[Activation, ...] = ()
    """In the namespace of the object, after its children."""
    job_statuses: tuple[JobStatus, ...] = ()
    """Of Jobs that are not children. They are written before the children are touched."""
