"""What the cache hears of batches, Bulkheads and namespaces reaches admission."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from builders import NOON, BatchBuilder, a_batch
from headrace.api.base import JsonObject
from headrace.api.bulkhead import Bulkhead, BulkheadStatus
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.reasons import Reason
from headrace.shells.kube.admission import Admission
from headrace.shells.kube.cache import Cache
from headrace.shells.kube.hearing import Hearing
from headrace.shells.kube.resources import BATCHES, BULKHEADS, NAMESPACES

READY = a_batch().with_spec(bulkheadName="prod").validated()


class Rig:
    """A cache with a hearing on it."""

    def __init__(self) -> None:
        self.cache, self.told, self.version = Cache(), list[str](), 0
        self.admission = Admission("worker", lambda key: self.told.append(key[1]), self._write)

    def begin(self) -> None:
        Hearing(self.cache, self.admission, lambda: NOON).begin()

    async def _write(self, bulkhead: Bulkhead, status: BulkheadStatus) -> None:
        raise AssertionError(f"nothing is written here, but {bulkhead.name} would be {status}")

    def batch(self, builder: BatchBuilder = READY) -> InferenceBatch:
        """The batch is as the builder says."""
        batch = builder.build()
        self.cache.put(BATCHES, self._versioned(batch.to_object()))
        return batch

    def bulkhead(self, **spec: Any) -> None:
        self.cache.put(BULKHEADS, self._versioned({"metadata": {"name": "prod", "uid": "p"}, "spec": spec}))

    def namespace(self, **labels: str) -> None:
        metadata = {"name": "default", "uid": "n", "labels": labels}
        self.cache.put(NAMESPACES, self._versioned({"metadata": metadata}))

    def reason(self, batch: InferenceBatch) -> Reason:
        return self.admission.look(batch, NOON).reason

    def _versioned(self, obj: JsonObject) -> JsonObject:
        self.version += 1
        return {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_begin_tells_what_was_listed_and_nothing_before(rig: Rig) -> None:
    rig.bulkhead(namespaceSelector={"matchLabels": {"team": "blue"}})
    rig.namespace(team="blue")
    batch = rig.batch()
    assert rig.told == []
    rig.begin()
    assert rig.told == ["reviews"]
    assert rig.reason(batch) == Reason.ADMITTED


def test_news_of_each_kind_changes_verdicts(rig: Rig) -> None:
    rig.begin()
    batch = rig.batch()
    assert rig.reason(batch) == Reason.UNKNOWN_BULKHEAD
    rig.bulkhead(namespaceSelector={"matchLabels": {"team": "blue"}})
    assert rig.reason(batch) == Reason.NAMESPACE_NOT_SELECTED
    rig.namespace(team="blue")
    assert rig.reason(batch) == Reason.ADMITTED
    rig.cache.remove(BATCHES, batch.to_object())
    assert rig.reason(batch) == Reason.PLANNING, "nothing is known of it any more"
    rig.cache.remove(BULKHEADS, {"metadata": {"name": "prod", "uid": "p"}})
    assert rig.admission.bulkheads == {}


def test_news_that_cannot_be_read_ends_nothing(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.begin()
    with caplog.at_level(logging.ERROR):
        rig.bulkhead(capacity={"gpus": -1})
    assert "Bulkhead prod is taken as one that is not there" in caplog.text
    assert rig.reason(rig.batch()) == Reason.UNKNOWN_BULKHEAD
    unreadable = READY.with_spec(parallelism=-1)
    raw = {**READY.build().to_object(), "spec": {**unreadable.spec}}
    rig.cache.put(BATCHES, rig._versioned(raw))
    assert rig.reason(READY.build()) == Reason.PLANNING
