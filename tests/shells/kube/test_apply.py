"""Applying a plan to a cluster that remembers what it was asked to do."""

from __future__ import annotations

import asyncio
from copy import deepcopy
from typing import Any, cast

import pytest

from builders import PLACE, a_batch
from headrace.api.base import JsonObject
from headrace.api.batchstatus import InferenceBatchStatus
from headrace.core.children import plan_job, run_job
from headrace.shells.kube.api import Api
from headrace.shells.kube.apply import Applier
from headrace.shells.kube.cache import Cache, Parent, key_of
from headrace.shells.kube.errors import Conflict, NotFound, TransientFailure
from headrace.shells.kube.resources import BATCHES, JOBS, Resource

BATCH = a_batch().sharded(4).validated().build()


class Cluster:
    """An API server in memory; `said` has every write that it was asked for."""

    def __init__(self) -> None:
        self.objects: dict[tuple[Resource, str, str], JsonObject] = {}
        self.said: list[tuple[str, str, Any]] = []
        self.refusal: Exception | None = None
        """What every write is answered with."""
        self.edits: JsonObject = {}
        """What somebody has just changed of the metadata."""
        self.cache = Cache()
        self.told: list[Parent] = []
        self.applier = Applier(cast("Api", self), self.cache, self.told.append)

    def has(self, resource: Resource, manifest: JsonObject, *, cached: bool = True, **metadata: Any) -> JsonObject:
        """There is such an object."""
        made = self._stored(resource, deepcopy(manifest) | {"metadata": manifest["metadata"] | metadata})
        if cached:
            self.cache.put(resource, deepcopy(made))
        return made

    async def get(self, resource: Resource, namespace: str, name: str) -> JsonObject:
        found = self.objects.get((resource, namespace, name))
        if found is None:
            raise NotFound(404, name)
        return deepcopy(found)

    async def create(self, resource: Resource, namespace: str, body: JsonObject) -> JsonObject:
        name = body["metadata"]["name"]
        self._say("create", name, body)
        if (resource, namespace, name) in self.objects:
            raise Conflict(409, "AlreadyExists")
        return self._stored(resource, body)

    async def patch(self, resource: Resource, namespace: str, name: str, body: JsonObject) -> JsonObject:
        self._say("patch", name, body)
        return self._stored(resource, self.objects[resource, namespace, name])

    async def delete(self, _: Resource, __: str, name: str, uid: str) -> None:
        self._say("delete", name, uid)

    async def replace_status(self, resource: Resource, metadata: JsonObject, status: JsonObject) -> JsonObject:
        self._say("status", metadata["name"], metadata["uid"])
        return self._stored(resource, {"metadata": {"generation": 1, **self.edits, **metadata}, "status": status})

    def _say(self, verb: str, name: str, what: Any) -> None:
        self.said.append((verb, name, what))
        if self.refusal is not None:
            raise self.refusal

    def _stored(self, resource: Resource, manifest: JsonObject) -> JsonObject:
        made = deepcopy(manifest)
        made["metadata"].setdefault("uid", f"uid-{made['metadata']['name']}")
        made["metadata"]["resourceVersion"] = str(len(self.objects) + len(self.said) + 1)
        self.objects[resource, *key_of(made)] = made
        return deepcopy(made)

    def wants(self, *children: JsonObject) -> list[tuple[str, str]]:
        """Apply those children; returns what was written."""
        self.said.clear()
        asyncio.run(self.applier.children(BATCH, tuple(children)))
        return [(verb, name) for verb, name, _ in self.said]


RUN = run_job(BATCH, PLACE, suspend=False)
PLAN = plan_job(BATCH, PLACE)


def test_children_are_created_once() -> None:
    cluster = Cluster()
    assert cluster.wants(PLAN, RUN) == [("create", "reviews-plan"), ("create", "reviews-run")]
    assert cluster.wants(PLAN, RUN) == []


def test_a_child_that_was_made_before_we_died_is_taken_as_it_is() -> None:
    cluster = Cluster()
    cluster.has(JOBS, RUN, cached=False)
    assert cluster.wants(RUN) == [("create", "reviews-run")]
    assert cluster.wants(RUN) == []


def test_a_child_that_was_there_already_is_looked_at_again_before_anything_is_changed() -> None:
    cluster = Cluster()
    cluster.has(JOBS, RUN | {"spec": {**RUN["spec"], "suspend": True}}, cached=False)
    assert cluster.wants(RUN) == [("create", "reviews-run")]
    assert cluster.told == [Parent.of(BATCH)]
    assert cluster.wants(RUN) == [("patch", "reviews-run")]


def test_a_job_is_patched_in_what_may_change() -> None:
    cluster = Cluster()
    cluster.has(JOBS, RUN | {"spec": {**RUN["spec"], "suspend": True, "parallelism": 1, "template": {"another": True}}})
    assert cluster.wants(RUN) == [("patch", "reviews-run")]
    assert cluster.said[0][2] == {"metadata": {"uid": "uid-reviews-run"}, "spec": {"suspend": False, "parallelism": 4}}


def test_a_child_that_is_not_wanted_is_deleted() -> None:
    cluster = Cluster()
    cluster.has(JOBS, PLAN)
    assert cluster.wants() == [("delete", "reviews-plan")]
    assert cluster.said[0][2] == "uid-reviews-plan"


def test_a_child_that_is_being_deleted_is_not_deleted_again() -> None:
    cluster = Cluster()
    cluster.has(JOBS, PLAN, deletionTimestamp="2026-01-15T12:00:00Z")
    assert cluster.wants() == []


def test_no_children_given_leaves_them_alone() -> None:
    cluster = Cluster()
    cluster.has(JOBS, RUN)
    asyncio.run(cluster.applier.children(BATCH, None))
    assert cluster.said == []


@pytest.mark.parametrize("cached", [True, False], ids=["with our label", "without our label"])
def test_somebody_elses_job_is_neither_taken_nor_patched_nor_deleted(*, cached: bool) -> None:
    cluster = Cluster()
    labels = RUN["metadata"]["labels"] if cached else {}
    cluster.has(JOBS, RUN, cached=cached, labels=labels, ownerReferences=[])
    remedy = "left by another batch of this name" if cached else "under another name"
    with pytest.raises(Conflict, match=f"Job reviews-run exists and is not of this batch: .*{remedy}"):
        cluster.wants(RUN)
    assert [verb for verb, _, _ in cluster.said] == ["create"]
    assert cluster.wants() == []


def test_a_name_that_was_taken_and_is_free_again_is_tried_again() -> None:
    cluster = Cluster()
    cluster.refusal = Conflict(409, "AlreadyExists")
    with pytest.raises(TransientFailure):
        cluster.wants(RUN)


def test_status_of_a_batch_that_is_gone_is_let_go() -> None:
    cluster = Cluster()
    cluster.refusal = NotFound(404, "reviews")
    asyncio.run(cluster.applier.status(BATCH, BATCH.status))
    assert cluster.cache.get(BATCHES, ("default", "reviews")) is None


def test_status_that_was_written_is_what_the_cache_has() -> None:
    cluster = Cluster()
    asyncio.run(cluster.applier.status(BATCH, InferenceBatchStatus(retries=3)))
    found = cluster.cache.get(BATCHES, ("default", "reviews"))
    assert found is not None
    assert found["status"]["retries"] == 3
    assert not cluster.told


@pytest.mark.parametrize("edits", [{"generation": 2}, {"annotations": {"headrace.dev/retry": "1"}}])
def test_status_that_came_back_with_an_edit_has_the_object_looked_at_again(edits: JsonObject) -> None:
    cluster = Cluster()
    cluster.edits = edits
    asyncio.run(cluster.applier.status(BATCH, BATCH.status))
    assert cluster.told == [Parent(BATCHES, "default", "reviews")], "the watch will tell nothing new"
