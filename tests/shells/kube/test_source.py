"""Lists and watches: where the stream goes on after it breaks, and when it begins anew with a list."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, cast

import pytest

from headrace.api.base import JsonObject
from headrace.shells.kube.api import Api
from headrace.shells.kube.cache import Cache, Parent
from headrace.shells.kube.errors import ApiError, Gone, NotFound, TransientFailure
from headrace.shells.kube.intake import Intake
from headrace.shells.kube.resources import BATCHES, FAN_OUTS, JOBS, PARENTS, SURROUNDINGS, WORKLOADS, Resource
from headrace.shells.kube.source import ListWatch, selector, watch_optional

from .conftest import Play

Script = Iterable[JsonObject | Exception]
ENDLESS: JsonObject = {"type": "ENDLESS"}

OURS = "app.kubernetes.io/managed-by=headrace-operator"


def an_event(kind: str, version: int, uid: str = "1") -> JsonObject:
    metadata = {"namespace": "default", "name": f"b{uid}", "uid": uid, "resourceVersion": str(version)}
    return {"type": kind, "object": {"metadata": metadata}}


class ScriptedApi:
    """Gives the batches that a test says, list by list and watch by watch; of other resources there is nothing."""

    def __init__(self, lists: Iterable[tuple[int, list[JsonObject]] | Exception], watches: Iterable[Script]) -> None:
        self._lists, self._watches = iter(lists), iter(watches)
        self.said: list[str] = []
        """What was asked for, with the time."""

    async def pages(self, resource: Resource, _: str | None, selector: str) -> AsyncIterator[JsonObject]:
        assert selector == ("" if resource in (*PARENTS, *SURROUNDINGS) else OURS)
        found = next(self._lists) if resource is BATCHES else (1, [])
        if resource is BATCHES:
            self.said.append("list")
        if isinstance(found, Exception):
            raise found
        version, items = found
        half = len(items) // 2
        for page in (items[:half], items[half:]):
            yield {"metadata": {"resourceVersion": str(version)}, "items": page}

    async def watch(self, resource: Resource, *args: Any) -> AsyncIterator[JsonObject]:
        _, _, version, _ = args
        script: Script = next(self._watches) if resource is BATCHES else [ENDLESS]
        if resource is BATCHES:
            self.said.append(f"watch from {version}")
        for event in script:
            if isinstance(event, Exception):
                raise event
            if event is ENDLESS:
                await asyncio.Event().wait()
            yield event


def outcome(play: Play, api: ScriptedApi, seconds: float = 1000) -> tuple[list[str], list[str], float]:
    """What was asked for, which batches are known in the end, and when the script was over."""

    async def story() -> tuple[list[str], list[str], float]:
        cache, woken = Cache(), list[Parent]()
        watching = asyncio.create_task(
            ListWatch(cast("Api", api)).run(Intake(cache, lambda key, _: woken.append(key), woken.append))
        )
        last, over = 0, 0.0
        for _ in range(int(seconds * 10)):
            await asyncio.sleep(0.1)
            if len(api.said) > last:
                last, over = len(api.said), asyncio.get_running_loop().time()
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
        return api.said, [obj["metadata"]["name"] for obj in cache.all(BATCHES)], over

    found: tuple[list[str], list[str], float] = play(story())
    return found


def listed(*uids: str, version: int = 10) -> tuple[int, list[JsonObject]]:
    return version, [an_event("", 5, uid)["object"] for uid in uids]


def test_run_lists_and_watches_from_there(play: Play) -> None:
    api = ScriptedApi([listed("1", "2", "3")], [[an_event("ADDED", 11, "4"), an_event("DELETED", 12, "1"), ENDLESS]])
    said, known, _ = outcome(play, api)
    assert said == ["list", "watch from 10"]
    assert known == ["b2", "b3", "b4"]


@pytest.mark.parametrize(
    "end", [[], [TransientFailure("the connection broke")]], ids=["by the server", "by a broken connection"]
)
def test_run_goes_on_from_the_last_event_when_a_stream_ends(play: Play, end: list[Exception]) -> None:
    first: Script = [an_event("ADDED", 11), an_event("BOOKMARK", 42), *end]
    said, known, _ = outcome(play, ScriptedApi([listed()], [first, [ENDLESS]]))
    assert said == ["list", "watch from 10", "watch from 42"]
    assert known == ["b1"]


def test_run_lists_anew_when_the_version_is_too_old(play: Play) -> None:
    api = ScriptedApi([listed("1", "2"), listed("2", version=20)], [[Gone(410, "too old")], [ENDLESS]])
    said, known, over = outcome(play, api)
    assert said == ["list", "watch from 10", "list", "watch from 20"]
    assert known == ["b2"]
    assert over < 1.0


def test_run_backs_off_while_lists_fail(play: Play) -> None:
    failures: list[tuple[int, list[JsonObject]] | Exception] = [ApiError(403, "forbidden")] * 12
    said, known, over = outcome(play, ScriptedApi([*failures, listed("1")], [[ENDLESS]]))
    assert said == [*["list"] * 13, "watch from 10"]
    assert known == ["b1"]
    assert 150 < over < 250


def test_run_waits_as_long_as_the_server_asks(play: Play) -> None:
    said, _, over = outcome(play, ScriptedApi([TransientFailure("busy", 60), listed()], [[ENDLESS]]))
    assert said == ["list", "list", "watch from 10"]
    assert 60 <= over <= 76


def test_selector_takes_all_objects_of_our_kinds_and_children_by_who_made_them() -> None:
    assert selector(BATCHES) == ""
    assert selector(FAN_OUTS) == ""
    assert selector(JOBS) == OURS
    assert selector(WORKLOADS) == ""


class WorkloadApi:
    """Knows Workloads of Kueue, or does not, as each answer says."""

    def __init__(self, *answers: ApiError | list[JsonObject]) -> None:
        self._answers = iter(answers)

    async def pages(self, resource: Resource, _: str | None, selector: str) -> AsyncIterator[JsonObject]:
        assert (resource, selector) == (WORKLOADS, "")
        found = next(self._answers)
        if isinstance(found, ApiError):
            raise found
        yield {"metadata": {"resourceVersion": "10"}, "items": found}

    async def watch(self, *_: Any) -> AsyncIterator[JsonObject]:
        await asyncio.sleep(100)
        raise NotFound(404, "the CRD was taken away")
        yield


@pytest.mark.parametrize(
    "refusal", [NotFound(404, "no such kind"), ApiError(403, "forbidden")], ids=["absent", "hidden"]
)
def test_watch_optional_finds_what_comes_later_and_notices_when_it_goes(play: Play, refusal: ApiError) -> None:
    async def story() -> None:
        cache = Cache()
        intake = Intake(cache, lambda _, __: None, lambda _: None)
        api = WorkloadApi(refusal, refusal, [an_event("", 5)["object"]], refusal, refusal, refusal, refusal, refusal)
        watching = asyncio.create_task(watch_optional(cast("Api", api), intake))
        seen = []
        for seconds in (1, 60, 100):
            await asyncio.sleep(seconds)
            seen.append((WORKLOADS in cache.absent, cache.count(WORKLOADS)))
        assert seen == [(True, 0), (False, 1), (True, 0)]
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching

    play(story())
