"""Metrics of schedules: how many there are and how they stand, and by how much their runs begin late."""

from __future__ import annotations

from collections import Counter as Multiset
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Gauge, Histogram

from headrace.api.kinds import OurObject, OurStatus
from headrace.api.schedulestatus import ScheduledGenerationStatus
from headrace.core.schedule.drift import just_begun
from headrace.core.schedule.progress import Standing, standing
from headrace.shells.kube.cache import Parent

_DRIFT_BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400)


class _Place(NamedTuple):
    namespace: str
    state: Standing


class ScheduleMetrics:
    """What is told of the schedules that this operator serves."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._places: dict[Parent, _Place] = {}
        self._schedules = Gauge(
            "headrace_schedules", "Schedules, by how they stand", ["namespace", "state"], registry=registry
        )
        self._drift = Histogram(
            "headrace_schedule_drift_seconds",
            "By how much the first records of runs were begun later than they were due, jitter not counted",
            ["namespace"],
            buckets=_DRIFT_BUCKETS,
            registry=registry,
        )

    def seen(self, key: Parent, status: ScheduledGenerationStatus) -> None:
        """A schedule stands like this now."""
        self._places[key] = _Place(key.namespace, standing(status))

    def gone(self, key: Parent) -> None:
        """There is no such schedule any more."""
        self._places.pop(key, None)

    def run_wrote(self, run: OurObject, status: OurStatus) -> None:
        """A status of an object that may be the run of a schedule has been written in place of the one that it had."""
        late = just_begun(run, status)
        if late is not None:
            self._drift.labels(run.metadata.namespace).observe(late.total_seconds())

    def refresh(self) -> None:
        """Bring up to date what says how many there are."""
        self._schedules.clear()
        for place, count in Multiset(self._places.values()).items():
            self._schedules.labels(*place).set(count)
