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
from headrace.api.worker import Report
from headrace.core.fanout.reconcile import reconcile as reconcile_fan_out
from headrace.core.observed import Installation
from headrace.core.plan import Plan
from headrace.core.reconcile import reconcile
from headrace.shells.kube.cache import Cache
from headrace.shells.kube.observe import observe, observe_fan_out
from headrace.shells.kube.resources import BATCHES, FAN_OUTS, Resource

Decide = Callable[[Cache, Any, Mapping[str, Report], Installation, datetime], Plan[Any]]
"""From the cache, an object, the last words of running pods by their uid, the installation and the time to what there should be."""


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


def _decide_batch(
    cache: Cache, batch: InferenceBatch, live: Mapping[str, Report], place: Installation, now: datetime
) -> Plan[Any]:
    return reconcile(observe(cache, batch, live, place, now))


def _decide_fan_out(
    cache: Cache, fan_out: FanOutJob, live: Mapping[str, Report], place: Installation, now: datetime
) -> Plan[Any]:
    return reconcile_fan_out(observe_fan_out(cache, fan_out, live, place, now))


def _handler(resource: Resource, decide: Decide) -> Handler:
    kind = kind_named(resource.kind)
    assert kind is not None
    return Handler(kind, decide)


HANDLERS: Mapping[Resource, Handler] = {
    BATCHES: _handler(BATCHES, _decide_batch),
    FAN_OUTS: _handler(FAN_OUTS, _decide_fan_out),
}
