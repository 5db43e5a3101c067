"""Events: posted once, in order, and never in anybody's way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import pytest

from builders import NOON, a_batch
from headrace.api.base import JsonObject
from headrace.core.plan import Event
from headrace.shells.kube.api import Api
from headrace.shells.kube.errors import ApiError, Conflict, LeaseLost, TransientFailure
from headrace.shells.kube.recorder import MOST_WAITING, TRIES, Recorder

from .conftest import Play

BATCH = a_batch().build()
BUSY = TransientFailure("busy")


class Posts:
    """An API server that takes events, after it has refused as often as it is told."""

    def __init__(self, refusals: Iterable[Exception] = ()) -> None:
        self._refusals = iter(refusals)
        self.tried: list[JsonObject] = []
        self.posted: list[JsonObject] = []

    async def create(self, _: Any, namespace: str, event: JsonObject) -> None:
        assert namespace == event["metadata"]["namespace"]
        self.tried.append(event)
        refusal = next(self._refusals, None)
        if refusal is not None:
            raise refusal
        self.posted.append(event)


def say(play: Play, *events: Event, posts: Posts | None = None, version: str = "5") -> tuple[Posts, float]:
    """Have events about a batch posted; returns who has them, and how long it took."""
    posts = posts or Posts()
    metadata = BATCH.metadata.model_copy(update={"resource_version": version})

    async def story() -> float:
        recorder = Recorder(cast("Api", posts), "me")
        recorder.say(BATCH.model_copy(update={"metadata": metadata}), events, NOON)
        recording = asyncio.create_task(recorder.run())
        await recorder.finish()
        recording.cancel()
        return asyncio.get_running_loop().time()

    return posts, play(story())


def test_say_posts_all_events_in_their_order(play: Play) -> None:
    posts, _ = say(play, Event("A", "a"), Event("B", "b"))
    assert [event["reason"] for event in posts.posted] == ["A", "B"]


def test_say_nothing_is_finished_at_once(play: Play) -> None:
    assert say(play)[0].posted == []


def test_an_event_names_its_batch_and_fits(play: Play) -> None:
    (event,) = say(play, Event("Admitted", "x" * 5000, "Warning"))[0].posted
    assert event["regarding"]["uid"] == BATCH.metadata.uid
    assert (event["reason"], event["type"], len(event["note"])) == ("Admitted", "Warning", 1024)
    assert (event["eventTime"], event["reportingInstance"]) == ("2026-01-15T12:00:00.000000Z", "me")


def test_events_have_the_same_name_when_they_say_the_same_of_the_same_version(play: Play) -> None:
    def names(version: str) -> list[str]:
        posts, _ = say(play, Event("A", "a"), Event("A", "b"), version=version)
        return [event["metadata"]["name"] for event in posts.posted]

    assert names("5") == names("5")
    assert len({*names("5"), *names("6")}) == 4


@pytest.mark.parametrize(
    "error", [Conflict(409, "AlreadyExists"), ApiError(403, "forbidden"), LeaseLost("lost")], ids=str
)
def test_an_event_that_is_refused_is_not_tried_again(play: Play, error: Exception) -> None:
    posts, _ = say(play, Event("A", "a"), Event("B", "b"), posts=Posts([error]))
    assert [event["reason"] for event in posts.tried] == ["A", "B"]
    assert [event["reason"] for event in posts.posted] == ["B"]


def test_an_event_is_tried_again_when_the_server_is_busy(play: Play) -> None:
    posts, took = say(play, Event("A", "a"), posts=Posts([BUSY, TransientFailure("busy", 30)]))
    assert [event["reason"] for event in posts.posted] == ["A"]
    assert took == 31.0


def test_an_event_is_let_go_after_some_tries(play: Play) -> None:
    posts, _ = say(play, Event("A", "a"), Event("B", "b"), posts=Posts([BUSY] * TRIES))
    assert [event["reason"] for event in posts.posted] == ["B"]


def test_the_oldest_events_are_dropped_when_too_many_wait(play: Play) -> None:
    posts, _ = say(play, *(Event("A", str(number)) for number in range(MOST_WAITING + 2)))
    assert (posts.posted[0]["note"], len(posts.posted)) == ("2", MOST_WAITING)
