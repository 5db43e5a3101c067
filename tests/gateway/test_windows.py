"""Accepted is answered, exactly once: whatever dies, and whenever."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asking_rig import Died, FakeClock, Life, MemoryPlace, MemoryStore
from headrace.api.asking import QueuedRequest, RequestRoute, RequestState, RequestWindow
from headrace.api.gateway import ServedModel
from headrace.core.asking.life import MOST_RECORD_BYTES, cancelled
from headrace.core.openai.ids import Part
from headrace.gateway.gathering.answers import Answers
from headrace.gateway.gathering.targets import ObjectTarget
from headrace.gateway.gathering.windows import RouteWindows
from headrace.gateway.places.lines import lines
from headrace.gateway.queues.store import StoreAway
from headrace.gateway.together import together

ROUTE = RequestRoute(
    name="chat",
    model="small",
    window=RequestWindow(max_batch_size=3, max_wait_milliseconds=150),
    max_open_batches=2,
    deadline_seconds=100,
)
SERVED = ServedModel.parse({"model": {"name": "small"}, "engine": {"name": "mock"}})
BODY: dict[str, Any] = {"model": "small", "messages": [{"role": "user", "content": "hello"}]}


@dataclass
class World:
    """A route, what outlives its processes, and what callers were told."""

    clock: FakeClock = field(default_factory=FakeClock)
    accepted: list[str] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    failing: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.store, self.place = MemoryStore(self.clock), MemoryPlace()

    def process(self, life: Life | None = None) -> RouteWindows:
        """A new process that serves the route."""
        given = life or Life()
        store, place = given.mortal(self.store), given.mortal(self.place)
        target = ObjectTarget(ROUTE, SERVED, place, Answers(store, place, self.clock))
        return RouteWindows(ROUTE, SERVED, store, target, self.clock)

    async def ask(self) -> None:
        """One more request is accepted."""
        name = f"req_chat_{len(self.accepted):024x}"
        await self.store.add(ROUTE, QueuedRequest(id=name, accepted=self.clock.now(), tokens=1, body=BODY))
        self.accepted.append(name)

    async def cancel(self, number: int) -> None:
        """A caller does not want one any more, unless it has ended."""
        name = self.accepted[number % len(self.accepted)]
        kept = await self.store.record(name)
        if kept is None or kept.record.state == RequestState.IN_PROGRESS:
            record = cancelled(kept.record if kept else None, name, 0, self.clock.now())
            assert record is not None
            assert await self.store.write_record(record, kept.revision if kept else 0)
            self.cancelled.add(name)

    async def live(self, steps: int, life: Life) -> None:
        """A process serves for a while, or until it dies, and batches end meanwhile."""
        process = self.process(life)
        try:
            await process.begin()
            for _ in range(steps):
                await process.step()
                self.finish()
        except (Died, StoreAway):
            return

    async def submit(self, count: int = 1) -> None:
        """So many requests come, and a process that does not die makes batches of them, as many as may be open."""
        for _ in range(count):
            await self.ask()
        process = self.process()
        await process.begin()
        for _ in range(30):
            await process.step()

    async def settle(self) -> None:
        """A process that does not die does all there is to do."""
        process = self.process()
        await process.begin()
        for _ in range(200):
            await process.step()
            self.finish()
            if process.idle and not self.store.queues["chat"]:
                return
        raise AssertionError("there is always something left")

    def finish(self) -> None:
        """All batches end."""
        for name in self.place.objects:
            self.place.finish(name, self.failing)

    def state(self, name: str) -> RequestState:
        """What has become of a request."""
        return self.store.records[name].record.state

    def check(self) -> None:
        """Each has one answer, from one batch, and nobody else's."""
        assert sorted(self.store.last_words) == sorted(self.accepted)
        in_batches = [name for batch in self.place.objects for name in self.place.ids(batch)]
        assert len(set(in_batches)) == len(in_batches), "no request is worked on by two batches"
        assert self.store.closed == {}
        for name in self.accepted:
            record = self.store.records[name].record
            expected = RequestState.FAILED if name in self.failing else RequestState.COMPLETED
            assert record.state == (RequestState.CANCELLED if name in self.cancelled else expected)
            if record.state == RequestState.COMPLETED:
                assert record.response is not None
                assert record.response["body"] == {"n": name}


LIVES = st.builds(Life, st.integers(1, 40), st.booleans(), st.sampled_from([Died, StoreAway]))


@given(st.lists(st.tuples(st.integers(0, 5), LIVES, st.lists(st.integers(0, 20), max_size=2)), max_size=5), st.data())
def test_accepted_is_answered_once_whatever_dies(
    chapters: list[tuple[int, Life, list[int]]], data: st.DataObject
) -> None:
    """Processes die one after the other at any of their calls, while requests come and are cancelled."""
    world = World()

    async def story() -> None:
        for coming, life, going in chapters:
            for _ in range(coming):
                await world.ask()
            await world.live(6, life)
            for number in going:
                if world.accepted:
                    await world.cancel(number)
        world.failing = frozenset(data.draw(st.sets(st.sampled_from(world.accepted))) if world.accepted else ())
        world.failing -= frozenset(
            name for batch in world.place.objects if _over(world, batch) for name in world.place.ids(batch)
        )
        await world.settle()

    asyncio.run(story())
    world.check()


def _over(world: World, batch: str) -> bool:
    return world.place.objects[batch].status.finished


@pytest.mark.parametrize("is_done", [False, True], ids=["before it is done", "after it is done"])
@pytest.mark.parametrize("calls", range(1, 30))
def test_one_death_at_each_call(calls: int, is_done: bool) -> None:
    world = World()

    async def story() -> None:
        for _ in range(4):
            await world.ask()
        await world.live(6, Life(calls, is_done))
        await world.settle()

    asyncio.run(story())
    world.check()


def settled(world: World, count: int) -> World:
    """After so many requests were asked and answered."""

    async def story() -> None:
        for _ in range(count):
            await world.ask()
        await world.settle()

    asyncio.run(story())
    return world


def test_windows_are_as_full_as_they_can_be() -> None:
    world = settled(World(), 7)
    assert [len(world.place.ids(name)) for name in world.place.objects] == [3, 3, 1]


def test_windows_that_come_late_take_along_who_waits_already() -> None:
    """The route had no room for so long that each of them had waited long enough by itself."""
    world = World()

    async def story() -> None:
        for _ in range(7):
            await world.ask()
        world.clock.milliseconds += 50 * ROUTE.window.max_wait_milliseconds
        await world.settle()

    asyncio.run(story())
    world.check()
    assert [len(world.place.ids(name)) for name in world.place.objects] == [3, 3, 1]


def test_bad_record_of_one_caller_hurts_no_other() -> None:
    world = World()
    world.failing = frozenset({f"req_chat_{1:024x}"})
    settled(world, 3).check()
    assert [world.state(name) for name in world.accepted] == ["completed", "failed", "completed"]


def test_request_that_was_cancelled_in_the_queue_is_in_no_batch() -> None:
    world = World()

    async def story() -> None:
        await world.ask()
        await world.cancel(0)
        await world.settle()

    asyncio.run(story())
    world.check()
    assert world.place.objects == {}


def test_request_that_has_waited_too_long_expires() -> None:
    world = World()

    async def story() -> None:
        await world.ask()
        world.clock.milliseconds += ROUTE.deadline_seconds * 1000
        await world.ask()
        await world.settle()

    asyncio.run(story())
    assert [world.state(name) for name in world.accepted] == ["expired", "completed"]
    assert [world.place.ids(name) for name in world.place.objects] == [[world.accepted[1]]]


def test_no_more_batches_are_open_than_the_route_allows() -> None:
    world = World()

    asyncio.run(world.submit(20))
    assert len(world.place.objects) == ROUTE.max_open_batches


def test_requests_of_a_batch_that_somebody_has_deleted_have_failed() -> None:
    world = World()

    async def story() -> None:
        await world.submit()
        world.place.objects.clear()
        await world.settle()

    asyncio.run(story())
    error = world.store.records[world.accepted[0]].record.error
    assert error is not None
    assert error.code == "batch_deleted"


def test_response_that_is_too_large_stays_in_its_batch() -> None:
    world = World()

    async def story() -> None:
        await world.submit()
        world.finish()
        (name,) = world.place.objects
        line = world.place.lines[name, Part.OUTPUT]
        world.place.lines[name, Part.OUTPUT] = line.replace(
            b'"body": {', b'"body": {"x": "' + b"y" * MOST_RECORD_BYTES + b'", '
        )
        await world.settle()

    asyncio.run(story())
    record = world.store.records[world.accepted[0]].record
    assert (record.state, record.in_batch, record.response) == (RequestState.COMPLETED, True, None)


@given(st.lists(st.binary(max_size=8).map(lambda raw: raw.replace(b"\n", b"") or b"x"), max_size=6), st.integers(1, 9))
def test_lines_of_pieces_of_any_size(wanted: list[bytes], size: int) -> None:
    data = b"".join(line + b"\n" for line in wanted)

    async def collected() -> list[bytes]:
        async def pieces() -> Any:
            for start in range(0, len(data), size):
                yield data[start : start + size]

        return [line async for line in lines(pieces())]

    assert asyncio.run(collected()) == [line.strip() for line in wanted if line.strip()]


def test_together_waits_for_what_was_begun_and_raises_the_first_failure() -> None:
    done: list[int] = []

    async def work(number: int) -> int:
        if number in (3, 5):
            raise StoreAway(str(number))
        await asyncio.sleep(0)
        done.append(number)
        return number

    with pytest.raises(StoreAway, match="3"):
        asyncio.run(together([work(number) for number in range(50)]))
    assert done == [number for number in range(32) if number not in (3, 5)], "the rest was not begun"
