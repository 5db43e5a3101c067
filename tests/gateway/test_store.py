"""What windows rely on in a store, of the one in memory and of JetStream alike; and a server of our own that comes and goes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import pytest

from asking_rig import FakeClock, MemoryStores
from headrace.api.asking import ClosedWindow, KnownKey, QueuedRequest, RequestRecord, RequestRoute, RequestState
from headrace.gateway.queues import natsserver
from headrace.gateway.queues.jetstream import JetStream, connected
from headrace.gateway.queues.natsserver import Address, NoServer, nats_server
from headrace.gateway.queues.store import Changes, Delivery, Lane, QueueFull, Store, StoreAway, Stores
from headrace.shells.local.files import holder_of, take_lock
from laptop import PATIENCE_SECONDS

ROUTE = RequestRoute(name="chat", model="small", max_queued=3)
Story = Callable[[Store], Awaitable[None]]
MINE, OTHERS = "team-a", "team"
KINDS = ["memory", "jetstream"]


def queued(number: int) -> QueuedRequest:
    return QueuedRequest(id=f"req_chat_{number:024x}", accepted=1000, tokens=1, body={"n": number})


def record(state: RequestState = RequestState.IN_PROGRESS) -> RequestRecord:
    return RequestRecord(id=queued(0).id, accepted=1000, state=state)


@asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[Stores]:
    """Empty stores, one with a route."""
    if kind == "memory":
        stores: Stores = MemoryStores(FakeClock())
        await stores.of(MINE).open_route(ROUTE)
        yield stores
        return
    async with nats_server(folder / "nats") as address, patiently_connected(address) as there:
        await there.of(MINE).open_route(ROUTE)
        yield there


def patiently_connected(address: Address) -> AbstractAsyncContextManager[JetStream]:
    """A store whose server may take its time: it is busy, not away."""
    return connected(address, PATIENCE_SECONDS, PATIENCE_SECONDS)


def told(kind: str, folder: Path, story: Story) -> None:
    """Tell a story of a store."""
    all_told(kind, folder, lambda stores: story(stores.of(MINE)))


def all_told(kind: str, folder: Path, story: Callable[[Stores], Awaitable[None]]) -> None:
    """Tell a story of the stores of all tenants."""

    async def tell() -> None:
        async with opened(kind, folder) as stores:
            await story(stores)

    asyncio.run(tell())


async def taken(store: Store, count: int) -> list[Delivery]:
    """So many requests, which are there."""
    found: list[Delivery] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(found) < count:
            found += await store.take("chat", count - len(found), 2000)
    return found


async def ids_taken(store: Store, count: int) -> list[str]:
    return [delivery.request.id for delivery in await taken(store, count)]


async def changed(stores: Stores, after: int, count: int = 1) -> Changes:
    """What has changed, once there are so many."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len((found := await stores.changes(after, 2000)).records) < count:
            pass
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_queue_gives_the_oldest_first_and_all_of_it_again_to_whoever_opens_it(kind: str, tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        for number in (0, 1, 1, 2):
            await store.add(ROUTE, queued(number))
        found = await store.find("chat", queued(1).id)
        assert found is not None
        assert (found.request, found.position) == (queued(1), 2)
        assert await ids_taken(store, 2) == [queued(0).id, queued(1).id]
        (last,) = await taken(store, 1)
        assert last.request == queued(2)
        assert await store.take("chat", 1, 50) == []
        await store.forget(last)
        await store.open_route(ROUTE)
        assert await ids_taken(store, 2) == [queued(0).id, queued(1).id]
        assert await store.find("chat", queued(9).id) is None

    told(kind, tmp_path, story)


@pytest.mark.parametrize("kind", KINDS)
def test_queue_that_is_full_refuses_until_something_has_gone(kind: str, tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        for number in range(3):
            await store.add(ROUTE, queued(number))
        with pytest.raises(QueueFull):
            await store.add(ROUTE, queued(3))
        (first,) = await taken(store, 1)
        await store.forget(first)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await store.find("chat", first.request.id) is not None:  # an acknowledgement is not answered
                await asyncio.sleep(0.01)
        await store.add(ROUTE, queued(3))
        assert await store.find("chat", queued(3).id) is not None

    told(kind, tmp_path, story)


@pytest.mark.parametrize("kind", KINDS)
def test_record_is_replaced_only_by_who_has_read_the_last_version(kind: str, tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        assert await store.record(record().id) is None
        assert await store.write_record(record(), 0)
        assert not await store.write_record(record(RequestState.CANCELLED), 0)
        kept = await store.record(record().id)
        assert kept is not None
        assert kept.record == record()
        assert await store.write_record(record(RequestState.COMPLETED), kept.revision)
        assert not await store.write_record(record(RequestState.CANCELLED), kept.revision)
        again = await store.record(record().id)
        assert again is not None
        assert again.record.state == RequestState.COMPLETED

    told(kind, tmp_path, story)


@pytest.mark.parametrize("kind", KINDS)
def test_windows_are_there_until_they_are_dropped(kind: str, tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        assert await store.windows("chat") == []
        first = ClosedWindow(batch="chat-1", route="chat", members=(queued(0),))
        other = ClosedWindow(batch="text-1", route="text", members=(queued(1),))
        await store.write_window(first)
        await store.write_window(other)
        changed = first.model_copy(update={"submitted": True})
        await store.write_window(changed)
        assert await store.windows("chat") == [changed]
        await store.drop_window("chat-1")
        assert await store.windows("chat") == []
        assert await store.window("chat-1") is None
        assert await store.window("text-1") == other

    told(kind, tmp_path, story)


@pytest.mark.parametrize("kind", KINDS)
def test_letters_are_there_once_in_their_order_until_they_are_dropped(kind: str, tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        assert await store.letters() == []
        for number in (2, 1, 2):
            await store.add_letter(queued(number).id)
        assert await store.letters() == [queued(2).id, queued(1).id]
        await store.drop_letter(queued(2).id)
        assert await store.letters() == [queued(1).id]

    told(kind, tmp_path, story)


@pytest.mark.parametrize("kind", KINDS)
def test_key_stands_for_what_was_first(kind: str, tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        first = KnownKey(id=queued(0).id, digest="a", accepted=1)
        assert await store.remember_key("k", first) == first
        assert await store.remember_key("k", first.model_copy(update={"digest": "b"})) == first

    told(kind, tmp_path, story)


@pytest.mark.parametrize("kind", KINDS)
def test_changes_come_in_order_and_the_latest_of_each_record(kind: str, tmp_path: Path) -> None:
    async def story(stores: Stores) -> None:
        store = stores.of(MINE)
        start = await stores.position()
        assert (await stores.changes(start.revision, 50)).records == []
        other = record().model_copy(update={"id": queued(1).id})
        assert await store.write_record(record(), 0)
        assert await store.write_record(other, 0)
        found = await changed(stores, start.revision, 2)
        assert [one.kept.record for one in found.records] == [record(), other]
        assert found.revision == found.records[1].kept.revision == (await stores.position()).revision
        assert await store.write_record(record(RequestState.COMPLETED), found.records[0].kept.revision)
        (last,) = (await changed(stores, found.revision)).records
        assert last.kept.record.state == RequestState.COMPLETED
        again = await changed(stores, start.revision, 2)
        assert [one.kept.record.id for one in again.records] == [other.id, record().id]
        assert (await stores.position()).epoch == start.epoch

    all_told(kind, tmp_path, story)


@pytest.mark.parametrize("kind", KINDS)
def test_tenants_find_nothing_of_each_other(kind: str, tmp_path: Path) -> None:
    """The name of one begins with that of the other."""

    async def story(stores: Stores) -> None:
        mine, others = stores.of(MINE), stores.of(OTHERS)
        window = ClosedWindow(batch="b1", route="chat", members=(queued(0),))
        key = KnownKey(id=queued(0).id, digest="a", accepted=1)
        await mine.add(ROUTE, queued(0))
        await mine.add_letter(queued(1).id)
        await mine.write_window(window)
        assert await mine.write_record(record(), 0)
        assert await mine.remember_key("k", key) == key
        await others.open_route(ROUTE)
        assert await others.find("chat", queued(0).id) is None
        assert await others.take("chat", 1, 50) == []
        assert (await others.letters(), await others.windows("chat")) == ([], [])
        assert (await others.record(record().id), await others.window("b1")) == (None, None)
        other_key = key.model_copy(update={"digest": "b"})
        assert await others.remember_key("k", other_key) == other_key
        await others.drop_letter(queued(1).id)
        await others.drop_window("b1")
        assert await mine.letters() == [queued(1).id]
        assert await mine.windows("chat") == [window]

    all_told(kind, tmp_path, story)


@pytest.mark.parametrize("kind", KINDS)
def test_queue_of_one_tenant_is_full_for_nobody_else(kind: str, tmp_path: Path) -> None:
    async def story(stores: Stores) -> None:
        for number in range(3):
            await stores.of(MINE).add(ROUTE, queued(number))
        with pytest.raises(QueueFull):
            await stores.of(MINE).add(ROUTE, queued(3))
        await stores.of(OTHERS).add(ROUTE, queued(3))
        wider = ROUTE.model_copy(update={"max_queued": 4})
        await stores.of(MINE).add(wider, queued(4))
        assert await stores.lanes() == {Lane(MINE, "chat"), Lane(OTHERS, "chat")}

    all_told(kind, tmp_path, story)


@pytest.mark.parametrize("kind", KINDS)
def test_lanes_are_those_with_anything_in_the_queue_or_in_windows(kind: str, tmp_path: Path) -> None:
    async def story(stores: Stores) -> None:
        assert await stores.lanes() == set()
        await stores.of(OTHERS).write_window(ClosedWindow(batch="b1", route="chat", members=(queued(0),)))
        assert await stores.lanes() == {Lane(OTHERS, "chat")}
        await stores.of(OTHERS).drop_window("b1")
        assert await stores.lanes() == set()

    all_told(kind, tmp_path, story)


def test_changes_go_on_after_the_server_was_killed(tmp_path: Path) -> None:
    async def story() -> None:
        async with nats_server(tmp_path) as address, connected(address) as stores:
            store = stores.of(MINE)
            at = (await stores.position()).revision
            assert await store.write_record(record(), 0)
            at = (await changed(stores, at)).revision
            os.kill(int((tmp_path / "server.pid").read_text()), signal.SIGKILL)
            found, done = list[RequestRecord](), False
            while not found:
                try:
                    done = done or await store.write_record(record(RequestState.COMPLETED), at)
                    found = [one.kept.record for one in (await stores.changes(at, 1000)).records]
                except StoreAway:
                    continue
            assert [one.state for one in found] == [RequestState.COMPLETED]

    asyncio.run(story())


def test_jetstream_whose_server_is_killed_keeps_what_it_has_said_it_keeps(tmp_path: Path) -> None:
    """The server is killed between two requests, and is there again by itself."""

    async def story() -> None:
        async with nats_server(tmp_path) as address, connected(address) as stores:
            store = stores.of(MINE)
            await store.open_route(ROUTE)
            await store.add(ROUTE, queued(0))
            os.kill(int((tmp_path / "server.pid").read_text()), signal.SIGKILL)
            while True:
                try:
                    await store.add(ROUTE, queued(1))
                except StoreAway:
                    continue
                break
            await store.open_route(ROUTE)
            found = [delivery.request for delivery in await taken(store, 2)]
            assert found == [queued(0), queued(1)]

    asyncio.run(story())
    assert holder_of(tmp_path / "server.lock") is None, "no server is left"


def test_server_that_cannot_be_started_again_for_a_moment_is_there_later(tmp_path: Path) -> None:
    """A folder stands where its log is to be written."""

    async def story() -> None:
        async with nats_server(tmp_path) as address, connected(address) as stores:
            store = stores.of(MINE)
            log = tmp_path / "server.log"
            log.rename(tmp_path / "old.log")
            log.mkdir()
            os.kill(int((tmp_path / "server.pid").read_text()), signal.SIGKILL)
            while (tmp_path / "server.pid").exists():  # it is removed right before the log is opened
                await asyncio.sleep(0.01)
            log.rmdir()
            while True:
                with suppress(StoreAway):
                    assert await store.record(record().id) is None
                    return

    asyncio.run(asyncio.wait_for(story(), 2 * PATIENCE_SECONDS))


def test_server_whose_port_somebody_else_has_taken_takes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        ports = [natsserver._free_port(), other.getsockname()[1]]
        wanted = ports[0]
        monkeypatch.setattr(natsserver, "_free_port", ports.pop)

        async def story() -> str:
            async with nats_server(tmp_path) as address, patiently_connected(address) as stores:
                assert await stores.of(MINE).letters() == []
                return address.url

        assert asyncio.run(story()) == f"nats://127.0.0.1:{wanted}"


def test_server_that_an_earlier_process_has_left_is_ended_first(tmp_path: Path) -> None:
    """A server that holds the lock of the folder, and whose parent is gone."""

    async def story() -> None:
        lock = take_lock(tmp_path / "server.lock")
        left = await asyncio.create_subprocess_exec("sleep", "600", pass_fds=[lock])
        os.close(lock)
        (tmp_path / "server.pid").write_text(str(left.pid))
        async with nats_server(tmp_path) as address, patiently_connected(address) as stores:
            assert await left.wait() == -signal.SIGTERM
            assert await stores.of(MINE).record(record().id) is None

    asyncio.run(story())


def test_connected_to_nobody_says_so_and_no_secret(tmp_path: Path) -> None:
    async def story() -> None:
        async with connected(Address("nats://user:secret@127.0.0.1:1"), patience_seconds=0.5):
            raise AssertionError("nobody is there")

    with pytest.raises(NoServer, match=r"no NATS server that lets us in at 127\.0\.0\.1:1") as caught:
        asyncio.run(story())
    assert "secret" not in str(caught.value)
