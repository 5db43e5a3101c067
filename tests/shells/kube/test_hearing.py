"""What the cache hears of batches, Bulkheads and namespaces reaches admission."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from builders import NOON, BatchBuilder, a_batch
from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.batchstatus import Admission as Held
from headrace.api.bulkhead import Bulkhead
from headrace.api.bulkheadstatus import BulkheadStatus
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.reasons import Reason
from headrace.core.admission.orphans import mark
from headrace.shells.kube.admission import Admission
from headrace.shells.kube.cache import Cache
from headrace.shells.kube.hearing import Hearing
from headrace.shells.kube.kueue import Kueue
from headrace.shells.kube.resources import BATCHES, BULKHEADS, JOBS, NAMESPACES, PODS, Resource

READY = a_batch().with_spec(bulkheadName="prod").validated()


class Rig:
    """A cache with a hearing on it."""

    def __init__(self) -> None:
        self.cache, self.told, self.version = Cache(), list[str](), 0
        self.admission = Admission("worker", lambda key, _: self.told.append(key[1]), self._write)

    def begin(self) -> None:
        Hearing(self.cache, self.admission, Kueue(self.cache), lambda: NOON).begin()

    async def _write(self, bulkhead: Bulkhead, status: BulkheadStatus) -> None:
        raise AssertionError(f"nothing is written here, but {bulkhead.name} would be {status}")

    def batch(self, builder: BatchBuilder = READY) -> InferenceBatch:
        """The batch is as the builder says."""
        batch = builder.build()
        self.cache.put(BATCHES, self._versioned(batch.to_object()))
        return batch

    def bulkhead(self, **spec: Any) -> None:
        self.cache.put(BULKHEADS, self._versioned({"metadata": {"name": "prod", "uid": "p"}, "spec": spec}))

    def namespace(self, **found: str) -> None:
        metadata = {"name": "default", "uid": "n", "labels": found}
        self.cache.put(NAMESPACES, self._versioned({"metadata": metadata}))

    def child(self, resource: Resource, name: str, **parts: Any) -> JsonObject:
        """A child of the batch `reviews`."""
        named = {"namespace": "default", "name": name, "uid": name, "labels": {labels.INFERENCE_BATCH: "reviews"}}
        named["annotations"] = {labels.HOLDS: mark(READY.build())}
        child = self._versioned({"metadata": named, **parts})
        self.cache.put(resource, child)
        return child

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
    rig.told.clear()
    rig.namespace(team="blue")
    assert rig.told == ["reviews"]
    assert rig.reason(batch) == Reason.ADMITTED
    rig.cache.remove(BATCHES, batch.to_object())
    assert "default/reviews" not in rig.admission.book.where
    rig.cache.remove(BULKHEADS, {"metadata": {"name": "prod", "uid": "p"}})
    assert rig.admission.bulkheads == {}


def test_news_that_cannot_be_read_ends_nothing(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.begin()
    with caplog.at_level(logging.ERROR):
        rig.bulkhead(capacity={"gpus": -1})
    assert "Bulkhead prod is taken as one that is not there" in caplog.text
    assert rig.reason(rig.batch()) == Reason.UNKNOWN_BULKHEAD


def test_a_deleted_batch_holds_what_it_held_until_its_last_pod_is_gone(rig: Rig) -> None:
    rig.bulkhead(capacity={"batches": 1})
    running = READY.admitted().with_status(admission=Held(pods=1, time=NOON))
    first = rig.batch(running)
    job, pod = rig.child(JOBS, "run"), rig.child(PODS, "pod")
    rig.begin()
    second = rig.batch(replace(READY, name="second"))
    rig.cache.remove(BATCHES, first.to_object())
    rig.cache.remove(JOBS, job)
    assert rig.reason(second) == Reason.QUOTA_EXCEEDED
    rig.cache.remove(PODS, pod)
    assert rig.reason(second) == Reason.ADMITTED


@pytest.mark.parametrize(
    ("job", "phases", "waits"),
    [
        pytest.param(None, ["Running"], True, id="a pod that runs"),
        pytest.param(None, ["Succeeded", "Failed"], False, id="pods that have ended"),
        pytest.param({"parallelism": 2}, [], True, id="a Job that may still start some"),
        pytest.param({"parallelism": 2, "suspend": True}, [], False, id="a Job that may not"),
    ],
)
def test_what_is_left_of_a_batch_that_was_gone_before_the_process_began(
    rig: Rig, job: JsonObject | None, phases: list[str], waits: bool
) -> None:
    rig.bulkhead(capacity={"batches": 1})
    children = [(PODS, rig.child(PODS, f"pod-{n}", status={"phase": phase})) for n, phase in enumerate(phases)]
    if job is not None:
        children.append((JOBS, rig.child(JOBS, "run", spec=job)))
    second = rig.batch(replace(READY, name="second"))
    rig.begin()
    assert (rig.reason(second) == Reason.QUOTA_EXCEEDED) == waits
    for resource, child in children:
        rig.cache.remove(resource, child)
    assert rig.reason(second) == Reason.ADMITTED
