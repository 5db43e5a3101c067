"""Schedules are looked at when something happens to what they depend on."""

from __future__ import annotations

from itertools import count

import pytest

from builders import a_batch
from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.shells.kube.cache import Cache, Parent
from headrace.shells.kube.dependents import Dependents
from headrace.shells.kube.resources import BATCHES, SCHEDULES
from schedule_builders import ScheduleBuilder, a_schedule

ON_BATCH = a_schedule(name="weekly").with_spec(dependsOn=[{"kind": "InferenceBatch", "name": "embeddings"}])
ON_SCHEDULE = a_schedule(name="daily").with_spec(dependsOn=[{"kind": "ScheduledGeneration", "name": "hourly"}])


class Rig:
    """A cache that somebody listens to already, and dependents behind them."""

    def __init__(self, *known: ScheduleBuilder) -> None:
        self.cache, self.looked_at, self.heard = Cache(), list[Parent](), 0
        self._versions = count(1)
        for schedule in known:
            self.schedule(schedule)
        self.cache.heard = lambda _resource, _key, _owner: self._count()
        Dependents(self.cache, self.looked_at.append).begin()

    def _count(self) -> None:
        self.heard += 1

    def schedule(self, schedule: ScheduleBuilder) -> None:
        """The schedule is as the builder says."""
        self.cache.put(SCHEDULES, self._versioned(schedule.build().to_object()))

    def batch(self, name: str = "embeddings", **labelled: str) -> JsonObject:
        """Something has happened to that batch."""
        batch = self._versioned(a_batch(name).build().to_object())
        batch["metadata"]["labels"] = labelled
        self.cache.put(BATCHES, batch)
        return batch

    def _versioned(self, obj: JsonObject) -> JsonObject:
        metadata = {"namespace": "default", "uid": f"uid-{obj['metadata']['name']}", **obj["metadata"]}
        return {**obj, "metadata": {**metadata, "resourceVersion": str(next(self._versions))}}

    @property
    def names(self) -> list[str]:
        """Of those that were looked at."""
        return [one.name for one in self.looked_at]


@pytest.mark.parametrize("known", [True, False], ids=["known from the beginning", "that comes later"])
def test_dependents_looks_at_a_schedule_when_its_batch_has_changed_or_is_gone(*, known: bool) -> None:
    rig = Rig(*([ON_BATCH] if known else []))
    if not known:
        rig.schedule(ON_BATCH)
    batch = rig.batch()
    assert rig.names == ["weekly"]
    rig.cache.remove(BATCHES, batch)
    assert rig.names == ["weekly", "weekly"]
    rig.batch("others")
    assert rig.names == ["weekly", "weekly"]


def test_dependents_looks_at_a_schedule_when_another_or_a_run_of_it_has_changed() -> None:
    rig = Rig(ON_SCHEDULE)
    rig.schedule(a_schedule())
    assert rig.names == ["daily"]
    rig.batch("hourly-29474640", **{labels.SCHEDULED_GENERATION: "hourly"})
    assert rig.names == ["daily", "daily"]


def test_dependents_forgets_what_a_schedule_does_not_depend_on_any_more() -> None:
    rig = Rig(ON_BATCH)
    rig.schedule(a_schedule(name="weekly"))
    rig.batch()
    assert rig.names == []


def test_dependents_leaves_those_be_who_have_listened_before() -> None:
    rig = Rig(ON_BATCH)
    rig.batch()
    assert rig.heard == 1
