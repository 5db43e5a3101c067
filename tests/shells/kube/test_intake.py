"""The intake: what is heard reaches the cache and wakes the right batch; what a list no longer shows is gone."""

from __future__ import annotations

from typing import Any

from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.shells.kube.cache import Cache, Parent
from headrace.shells.kube.intake import Intake
from headrace.shells.kube.line import Urgency
from headrace.shells.kube.resources import BATCHES, BULKHEADS, JOBS, PODS, SURROUNDINGS, WATCHED

from .conftest import Play

REVIEWS = Parent(BATCHES, "default", "reviews")


class Desk:
    """An intake, its cache, and the keys that it has woken."""

    def __init__(self, *namespaces: str) -> None:
        self.cache, self.woken, self.soon = Cache(), list[Parent](), list[Parent]()
        self.urgencies: list[Urgency] = []
        self.intake = Intake(self.cache, self.wake, self.soon.append, namespaces)

    def wake(self, key: Parent, urgency: Urgency) -> None:
        self.woken.append(key)
        self.urgencies.append(urgency)

    def hears(self, kind: str | None, obj: JsonObject) -> list[Parent]:
        """The keys that an event about a Job wakes."""
        self.woken.clear()
        self.intake.event(JOBS, kind, obj)
        return list(self.woken)


def job(name: str, uid: str, version: int, namespace: str = "default", batch: str | None = "reviews") -> JsonObject:
    found: dict[str, Any] = {"namespace": namespace, "name": name, "uid": uid, "resourceVersion": str(version)}
    return {"metadata": found | ({"labels": {labels.INFERENCE_BATCH: batch}} if batch else {})}


def test_event_wakes_the_batch_when_it_is_news(play: Play) -> None:
    async def story() -> None:
        desk = Desk()
        assert desk.hears("ADDED", job("a", "1", 5)) == [REVIEWS]
        assert desk.hears("MODIFIED", job("a", "1", 5)) == []
        assert desk.hears("MODIFIED", job("a", "1", 6)) == [REVIEWS]
        assert desk.hears("DELETED", job("a", "1", 7)) == [REVIEWS]
        assert desk.cache.count(JOBS) == 0

    play(story())


def test_event_about_a_pod_wakes_the_batch_soon(play: Play) -> None:
    async def story() -> None:
        desk = Desk()
        desk.intake.event(PODS, "ADDED", job("p", "1", 5))
        desk.intake.event(PODS, "DELETED", job("p", "1", 6))
        assert desk.woken == []
        assert desk.soon == [REVIEWS] * 2

    play(story())


def test_event_about_a_job_is_more_urgent_than_about_the_batch(play: Play) -> None:
    async def story() -> None:
        desk = Desk()
        desk.hears("ADDED", job("a", "1", 5))
        desk.intake.event(BATCHES, "ADDED", job("reviews", "2", 6, batch=None))
        assert desk.woken == [REVIEWS, REVIEWS]
        assert desk.urgencies == [Urgency.NOW, Urgency.SOON]

    play(story())


def test_event_about_nobodys_object_wakes_nobody(play: Play) -> None:
    async def story() -> None:
        assert Desk().hears("ADDED", job("a", "1", 5, batch=None)) == []

    play(story())


def test_listed_takes_out_what_is_gone_and_leaves_what_is_younger(play: Play) -> None:
    async def story() -> None:
        desk = Desk()
        for name, uid, version in (("shown", "1", 5), ("gone", "2", 6), ("younger", "3", 11)):
            desk.hears(None, job(name, uid, version))
        desk.woken.clear()
        desk.intake.listed(JOBS, None, ["1"], 10)
        assert [it["metadata"]["name"] for it in desk.cache.all(JOBS)] == ["shown", "younger"]
        assert desk.woken == [REVIEWS]

    play(story())


def test_listed_speaks_of_its_own_namespace_alone(play: Play) -> None:
    async def story() -> None:
        desk = Desk("here", "there")
        desk.hears(None, job("a", "1", 5, "here"))
        desk.hears(None, job("b", "2", 5, "there"))
        desk.intake.listed(JOBS, "here", [], 10)
        assert [it["metadata"]["name"] for it in desk.cache.all(JOBS)] == ["b"]

    play(story())


def test_complete_once_every_resource_of_every_namespace_was_listed(play: Play) -> None:
    async def story() -> None:
        desk = Desk("here", "there")
        assert len(desk.intake.places) == 2 * len(WATCHED) - len(SURROUNDINGS)
        assert {place for place in desk.intake.places if place[0] is BULKHEADS} == {(BULKHEADS, None)}
        for resource, namespace in desk.intake.places:
            assert not desk.intake.complete.is_set()
            desk.intake.listed(resource, namespace, [], 1)
        for resource, namespace in desk.intake.optional_places:
            assert not desk.intake.complete.is_set()
            desk.intake.absent(resource, namespace)
        assert desk.intake.complete.is_set()
        assert desk.intake.places[0] == (BATCHES, "here")

    play(story())
