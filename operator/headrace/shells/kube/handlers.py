"""What the loop has to know of each of our kinds: how an object of it is read, and who decides about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from headrace.api import labels
from headrace.api.base import InvalidSpec, JsonObject
from headrace.api.fanoutjob import FanOutJob
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import Kind, kind_named
from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.core.fanout.reconcile import reconcile as reconcile_fan_out
from headrace.core.plan import Plan
from headrace.core.reconcile import reconcile
from headrace.core.schedule.reconcile import reconcile as reconcile_schedule
from headrace.shells.kube.observe import Sight, observe, observe_fan_out, observe_schedule
from headrace.shells.kube.resources import BATCHES, FAN_OUTS, SCHEDULES, Resource

Decide = Callable[[Sight, Any, datetime], Plan[Any]]
"""From what can be seen, an object and the time to what there should be."""


@dataclass(frozen=True, slots=True)
class Handler:
    """One kind."""

    kind: Kind
    decide: Decide

    def parse(self, found: JsonObject) -> Any | None:
        """The object; None when the models refuse it."""
        try:
            return self.kind.model.parse({"apiVersion": labels.API_VERSION, "kind": self.kind.name, **found})
        except InvalidSpec:
            return None


def _decide_batch(sight: Sight, batch: InferenceBatch, now: datetime) -> Plan[Any]:
    return reconcile(observe(sight, batch, now))


def _decide_fan_out(sight: Sight, fan_out: FanOutJob, now: datetime) -> Plan[Any]:
    return reconcile_fan_out(observe_fan_out(sight, fan_out, now))


def _decide_schedule(sight: Sight, schedule: ScheduledGeneration, now: datetime) -> Plan[Any]:
    return reconcile_schedule(observe_schedule(sight, schedule, now))


def _handler(resource: Resource, decide: Decide) -> Handler:
    kind = kind_named(resource.kind)
    assert kind is not None
    return Handler(kind, decide)


HANDLERS: Mapping[Resource, Handler] = {
    BATCHES: _handler(BATCHES, _decide_batch),
    FAN_OUTS: _handler(FAN_OUTS, _decide_fan_out),
    SCHEDULES: _handler(SCHEDULES, _decide_schedule),
}
