"""Kueue as the cache shows it: which Workload is that of which Job, who is woken by it, and what is asked of it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from builders import a_batch
from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.worker import Role
from headrace.core.kueue.workload import KueueView
from headrace.core.observed import JobSnapshot
from headrace.core.plan import Activation
from headrace.shells.kube.api import Api
from headrace.shells.kube.apply import Applier
from headrace.shells.kube.cache import Cache, Parent
from headrace.shells.kube.errors import NotFound
from headrace.shells.kube.intake import Intake
from headrace.shells.kube.kueue import Kueue
from headrace.shells.kube.resources import BATCHES, JOBS, WORKLOADS, Resource

from .conftest import Play

BATCH = a_batch().with_spec(queueName="team-a").build()
RUN = JobSnapshot("reviews-run", "uid-run", Role.RUN)


def a_job() -> JsonObject:
    metadata = {"namespace": "default", "name": "reviews-run", "uid": "uid-run", "resourceVersion": "5"}
    return {"metadata": {**metadata, "labels": {labels.INFERENCE_BATCH: "reviews"}}}


def a_workload(
    name: str, job_uid: str = "uid-run", version: int = 6, at: int = 0, kind: str = "Job", **spec: Any
) -> JsonObject:
    owner = {"kind": kind, "name": "reviews-run", "uid": job_uid, "controller": True}
    metadata = {
        "namespace": "default",
        "name": name,
        "uid": f"uid-{name}",
        "resourceVersion": str(version),
        "creationTimestamp": f"2026-01-15T12:00:0{at}Z",
        "ownerReferences": [owner],
        "annotations": {"somebody": "elses", labels.DEACTIVATED: "true"},
    }
    return {"metadata": metadata, "spec": {"queueName": "team-a", "podSets": ["large"], **spec}}


class Sees:
    """A cache with those Workloads, and Kueue as it follows from it."""

    def __init__(self, *workloads: JsonObject) -> None:
        self.cache = Cache()
        self.kueue = Kueue(self.cache)
        self.cache.heard = self._heard
        for workload in workloads:
            self.cache.put(WORKLOADS, workload)

    def _heard(self, resource: Resource, key: tuple[str, str], _: Parent | None) -> None:
        assert resource is WORKLOADS
        self.kueue.heard(key)

    def view(self, run: JobSnapshot | None = RUN) -> KueueView:
        found = self.kueue.view(BATCH, run)
        assert found is not None
        return found


def test_view_has_the_workload_of_this_very_job_and_its_place() -> None:
    others = (a_workload(f"other-{number}", "uid-other") for number in range(2))
    seen = Sees(*others, a_workload("mine", at=1))
    workload = seen.view().workload
    assert workload is not None
    assert (workload.name, workload.rests_for_us, seen.view().position) == ("mine", True, 3)
    assert seen.view(None) == KueueView(installed=True)
    seen.cache.remove(WORKLOADS, a_workload("other-0", "uid-other"))
    assert seen.view().position == 2


def test_view_has_no_place_for_who_does_not_wait() -> None:
    assert Sees(a_workload("mine", active=False)).view().position is None


def test_view_is_none_for_a_batch_that_does_not_ask_kueue() -> None:
    assert Sees().kueue.view(a_batch().build(), RUN) is None


def test_cache_keeps_of_a_workload_what_decisions_need() -> None:
    (found,) = Sees(a_workload("mine")).cache.all(WORKLOADS)
    assert found["spec"] == {"queueName": "team-a"}
    assert found["metadata"]["annotations"] == {labels.DEACTIVATED: "true"}


def test_news_of_a_workload_wakes_the_batch_of_its_job(play: Play) -> None:
    async def story() -> None:
        cache, woken = Cache(), list[Parent]()
        intake = Intake(cache, lambda key, _: woken.append(key), woken.append)
        intake.event(WORKLOADS, "ADDED", a_workload("mine"))
        assert woken == []
        cache.put(JOBS, a_job())
        intake.event(WORKLOADS, "MODIFIED", a_workload("mine", version=7))
        intake.event(WORKLOADS, "ADDED", a_workload("a-pod-of-that-name", kind="Pod"))
        intake.absent(WORKLOADS, None)
        assert woken == [Parent(BATCHES, "default", "reviews")] * 2
        assert cache.count(WORKLOADS) == 0

    play(story())


class Asked:
    """An API server that remembers what was asked of Workloads."""

    def __init__(self, *, there: bool = True) -> None:
        self.said: list[tuple[str, JsonObject]] = []
        self._there = there

    async def patch(self, resource: Resource, namespace: str, name: str, body: JsonObject) -> JsonObject:
        assert (resource, namespace) == (WORKLOADS, "default")
        self.said.append((name, body))
        if not self._there:
            raise NotFound(404, name)
        return a_workload(name, version=9, active=body["spec"]["active"])


def test_activate_marks_what_it_makes_inactive_and_takes_the_mark_back() -> None:
    api, cache = Asked(), Cache()
    applier = Applier(cast("Api", api), cache, lambda _: None)
    for active in (False, True):
        asyncio.run(applier.activate(BATCH, Activation("mine", "uid-mine", active=active)))
    assert [body for _, body in api.said] == [
        {"metadata": {"uid": "uid-mine", "annotations": {labels.DEACTIVATED: mark}}, "spec": {"active": active}}
        for active, mark in ((False, "true"), (True, None))
    ]
    assert cache.count(WORKLOADS) == 1


def test_activate_leaves_a_workload_that_is_gone_in_peace() -> None:
    api, cache = Asked(there=False), Cache()
    asyncio.run(Applier(cast("Api", api), cache, lambda _: None).activate(BATCH, Activation("mine", "u", active=False)))
    assert cache.count(WORKLOADS) == 0
