"""Those who wait are told of every end once: whoever is cut off, however often, and whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asking_rig import FakeClock, MemoryPlace, MemoryStore, MemoryStores, NoTakers
from headrace.api.asking import QueuedRequest, RequestRecord, RequestState
from headrace.api.worker import Partial
from headrace.core.asking.push import MOST_IDS, heard, server_sent, stream_message, token_of
from headrace.core.openai.errors import ApiError
from headrace.gateway.queues.known import Known
from headrace.gateway.queues.queueing import Queue
from headrace.gateway.queues.store import Kept, Position, StoreAway
from headrace.gateway.telling.listening import Listener
from headrace.gateway.telling.pushing import Pushes
from headrace.gateway.tenants.rooms import Room


def request_id(number: int) -> str:
    return f"req_chat_{number:024x}"


@dataclass
class World:
    """A store, its reader, and one client that comes again whenever it is cut off."""

    count: int = 3
    stores: MemoryStores = field(default_factory=lambda: MemoryStores(FakeClock()))
    told: list[tuple[str, str]] = field(default_factory=list)
    """What the client was told: ids with states, without those of the queue."""
    token: str | None = None
    listener: Listener | None = None

    @property
    def store(self) -> MemoryStore:
        return self.stores.of("default")

    def room(self, namespace: str = "default") -> Room:
        """That of a tenant."""
        store, place, clock = self.stores.of(namespace), MemoryPlace(namespace), self.stores.clock
        queue = Queue(namespace, store, NoTakers(), clock)
        return Room(namespace, store, place, Known(store, place, {"chat"}), queue)

    def __post_init__(self) -> None:
        self.names = [request_id(number) for number in range(self.count)]
        self.store.queues["chat"] = [QueuedRequest(id=it, accepted=1, tokens=1, body={}) for it in self.names]
        self.pushes = Pushes(self.stores, self.stores.clock)

    async def change(self, number: int) -> None:
        """A request begins, or ends."""
        name = self.names[number % self.count]
        kept = self.store.records.get(name)
        if kept is None:
            state = RequestState.IN_PROGRESS
            self.store.queues["chat"] = [one for one in self.store.queues["chat"] if one.id != name]
        elif kept.record.state == RequestState.IN_PROGRESS:
            state = RequestState.COMPLETED
        else:
            return
        record = RequestRecord(id=name, accepted=1, state=state)
        assert await self.store.write_record(record, kept.revision if kept else 0)

    def grow(self, number: int, text: str = "so far") -> None:
        """An answer is being written."""
        self.pushes.grown("default", Partial(custom_id=self.names[number % self.count], text=text, tokens=len(text)))

    async def connect(self) -> Listener:
        """The client comes, with the token of the last that it has heard, and asks for all of its requests."""
        self.cut()
        self.listener = self.pushes.listen(self.room())
        assert await self.listener.add(dict.fromkeys(self.names, self.token)) == []
        return self.listener

    def cut(self) -> None:
        """The client goes."""
        if self.listener is not None:
            self.listener.close()
            self.listener = None

    async def hear(self) -> bool:
        """The client takes one event; False when there is none."""
        listener = self.listener or await self.connect()
        event = await listener.take()
        if event is not None and event["token"] is not None:
            self.token = event["token"]
            self.told.append((event["request"]["id"], event["request"]["status"]))
        return event is not None

    async def do(self, action: str, number: int) -> None:
        """One thing that may happen."""
        if action == "change":
            await self.change(number)
        elif action == "read":
            await self.pushes.step()
        elif action == "grow":
            self.grow(number)
        elif action == "hear":
            await self.hear()
        elif action == "cut":
            self.cut()
        else:
            await self.connect()


ACTIONS = st.tuples(st.sampled_from(["change", "change", "read", "hear", "cut", "connect", "grow"]), st.integers(0, 2))


@given(st.lists(ACTIONS, max_size=40))
def test_every_end_is_told_once_whoever_is_cut_off(actions: list[tuple[str, int]]) -> None:
    world = World()

    async def story() -> None:
        await world.pushes.begin()
        for action, number in actions:
            await world.do(action, number)
        for number in (0, 1, 2, 0, 1, 2):
            await world.change(number)
        await world.pushes.step()
        while await world.hear():
            pass

    asyncio.run(story())
    assert len(set(world.told)) == len(world.told), "nothing is told twice"
    assert {name for name, state in world.told if state == "completed"} == set(world.names), "no end is left out"
    for name in world.names:
        states = [state for told, state in world.told if told == name]
        assert states in (["in_progress", "completed"], ["completed"])


def test_listener_that_reads_nothing_holds_a_few_numbers_and_is_told_the_latest() -> None:
    world = World(50)

    async def story() -> None:
        await world.pushes.begin()
        listener = await world.connect()
        for _ in range(3):
            for number in range(50):
                await world.change(number)
            await world.pushes.step()
        assert len(listener._due) <= 2 * 50
        while await world.hear():
            pass
        assert not listener.waits

    asyncio.run(story())
    assert [state for _, state in world.told] == ["completed"] * 50
    assert world.pushes.recent.currsize == 0, "nobody waits any more"


def test_answers_that_grow_are_told_last_and_who_is_slow_hears_of_the_last_growth_alone() -> None:
    world = World(3)

    async def story() -> None:
        await world.pushes.begin()
        world.grow(0, "nobody listens")
        assert world.pushes.partials.currsize == 0
        listener = await world.connect()
        while await listener.take():
            pass
        for number in range(3):
            await world.change(number)
            for length in range(1, 100):
                world.grow(number, "x" * length)
        world.pushes.grown("another", Partial(custom_id=world.names[0], text="not yours", tokens=9))
        await world.change(0)
        await world.pushes.step()
        heard = [await listener.take() for _ in range(6)]
        assert [event["type"] for event in heard if event is not None] == ["request"] * 3 + ["partial"] * 2
        assert [(one["id"], len(one["text"]), one["token"]) for one in heard[3:5] if one is not None] == [
            (world.names[number], 99, None) for number in (1, 2)
        ], "the answer of the first is there, and no part of it is told after it"
        world.grow(0)
        assert await listener.take() is None
        listener.close()
        assert world.pushes.partials.currsize == 0

    asyncio.run(story())


def test_listener_is_told_of_the_queue_once_and_of_nothing_that_is_known() -> None:
    world = World(1)

    async def story() -> None:
        await world.pushes.begin()
        listener = await world.connect()
        first = await listener.take()
        assert first is not None
        assert (first["token"], first["request"]["status"], first["request"]["position"]) == (None, "queued", 1)
        assert await listener.take() is None
        await world.change(0)
        await world.change(0)
        await world.pushes.step()
        assert await world.hear()
        again = await world.connect()
        assert (await again.take(), again.waits) == (None, False)

    asyncio.run(story())


def test_listener_of_another_store_is_told_anew() -> None:
    """The store is made anew, and its numbers begin again: what was heard of the old one counts for nothing."""
    assert heard("old-17", "new") == 0
    world = World(1)

    async def story() -> None:
        await world.pushes.begin()
        listener = await world.connect()
        world.pushes.at = Position("another", 99)
        following = asyncio.create_task(world.pushes._follow())
        await listener.ready()
        while not listener.has_ended:
            await asyncio.sleep(0)
        following.cancel()
        assert world.pushes.at.epoch == "m"

    asyncio.run(story())


def test_unknown_ids_are_named_and_not_waited_for() -> None:
    world = World(1)

    async def story() -> None:
        listener = world.pushes.listen(world.room())
        assert await listener.add({request_id(9): None, "rubbish": None}) == [request_id(9), "rubbish"]
        assert not listener.waits
        with pytest.raises(ApiError, match="may wait for 1000 requests"):
            await listener.add({request_id(number): None for number in range(MOST_IDS + 1)})

    asyncio.run(story())


def test_response_that_is_gone_is_an_event_too() -> None:
    world = World(1)

    async def story() -> None:
        await world.pushes.begin()
        record = RequestRecord(id=world.names[0], accepted=1, state=RequestState.COMPLETED, batch="gone", in_batch=True)
        world.store.records[record.id] = Kept(record, 1)
        await world.pushes.begin()
        listener = await world.connect()
        event = await listener.take()
        assert event is not None
        assert (event["type"], event["id"], event["error"]["code"]) == ("error", record.id, "response_gone")
        assert not listener.waits

    asyncio.run(story())


def test_reader_whose_store_goes_away_leaves_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    world, changes, calls = World(1), MemoryStores.changes, iter(range(100))

    async def failing(self: MemoryStores, after: int, milliseconds: int) -> Any:
        if next(calls) % 2:
            raise StoreAway("no answer")
        return await changes(self, after, milliseconds)

    async def story() -> None:
        monkeypatch.setattr(MemoryStores, "changes", failing)
        await world.pushes.begin()
        listener = await world.connect()
        running = asyncio.create_task(world.pushes.run())
        await world.change(0)
        await world.change(0)
        while not await world.hear() or not world.told:
            await listener.ready()
        running.cancel()

    asyncio.run(story())
    assert world.told == [(world.names[0], "completed")]


@pytest.mark.parametrize("token", ["", "x", "m-", "m-1-2", "M-1", "m-" + "9" * 20])
def test_token_that_is_none(token: str) -> None:
    with pytest.raises(ApiError, match="the token must be one that was sent"):
        heard(token, "m")


def test_token_of_what_was_heard() -> None:
    assert heard(token_of("1a", 7), "1a") == 7
    assert heard(None, "1a") == 0


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"subscribe": ["a"]}', "subscribe"),
        (b'{"listen": {}}', "unknown field"),
    ],
)
def test_message_that_cannot_be_understood(raw: bytes, says: str) -> None:
    with pytest.raises(ApiError, match=says):
        stream_message(raw)


def test_event_as_server_sent_event() -> None:
    said = server_sent({"type": "request", "token": "m-1", "request": {"text": "a\nb"}})
    assert said.split(b"\n") == [
        b"id: m-1",
        b"event: request",
        b'data: {"type":"request","token":"m-1","request":{"text":"a\\nb"}}',
        b"",
        b"",
    ]
