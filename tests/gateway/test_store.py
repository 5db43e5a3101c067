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

from asking_rig import FakeClock, MemoryStore
from headrace.api.asking import ClosedWindow, KnownKey, QueuedRequest, RequestRecord, RequestRoute, RequestState
from headrace.gateway import natsserver
from headrace.gateway.jetstream import JetStream, connected
from headrace.gateway.natsserver import Address, NoServer, nats_server
from headrace.gateway.store import Changes, Delivery, QueueFull, Store, StoreAway
from headrace.shells.local.files import holder_of, take_lock
from laptop import PATIENCE_SECONDS

ROUTE = RequestRoute(name="chat", model="small", max_queued=3)
Story = Callable[[Store], Awaitable[None]]
KINDS = ["memory", "jetstream"]


def queued(number: int) -> QueuedRequest:
    return QueuedRequest(id=f"req_chat_{number:024x}", accepted=1000, tokens=1, body={"n": number})


def record(state: RequestState = RequestState.IN_PROGRESS) -> RequestRecord:
    return RequestRecord(id=queued(0).id, accepted=1000, state=state)


@asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[Store]:
    """An empty store with one route."""
    if kind == "memory":
        store = MemoryStore(FakeClock())
        await store.open_route(ROUTE)
        yield store
        return
    async with nats_server(folder / "nats") as address, patiently_connected(address) as there:
        await there.open_route(ROUTE)
        yield there


def patiently_connected(address: Address) -> AbstractAsyncContextManager[JetStream]:
    """A store whose server may take its time: it is busy, not away."""
    return connected(address, [ROUTE], PATIENCE_SECONDS, PATIENCE_SECONDS)


def told(kind: str, folder: Path, story: Story) -> None:
    """Tell a story of a store."""

    async def tell() -> None:
        async with opened(kind, folder) as store:
            await story(store)

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


async def changed(store: Store, after: int, count: int = 1) -> Changes:
    """What has changed, once there are so many."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len((found := await store.changes(after, 2000)).records) < count:
            pass
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_queue_gives_the_oldest_first_and_all_of_it_again_to_whoever_opens_it(kind: str, tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        for number in (0, 1, 1, 2):
            await store.add("chat", queued(number))
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
            await store.add("chat", queued(number))
        with pytest.raises(QueueFull):
            await store.add("chat", queued(3))
        (first,) = await taken(store, 1)
        await store.forget(first)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await store.find("chat", first.request.id) is not None:  # an acknowledgement is not answered
                await asyncio.sleep(0.01)
        await store.add("chat", queued(3))
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
    async def story(store: Store) -> None:
        start = await store.position()
        assert (await store.changes(start.revision, 50)).records == []
        other = record().model_copy(update={"id": queued(1).id})
        assert await store.write_record(record(), 0)
        assert await store.write_record(other, 0)
        found = await changed(store, start.revision, 2)
        assert [kept.record for kept in found.records] == [record(), other]
        assert found.revision == found.records[1].revision == (await store.position()).revision
        assert await store.write_record(record(RequestState.COMPLETED), found.records[0].revision)
        (last,) = (await changed(store, found.revision)).records
        assert last.record.state == RequestState.COMPLETED
        again = await changed(store, start.revision, 2)
        assert [kept.record.id for kept in again.records] == [other.id, record().id]
        assert (await store.position()).epoch == start.epoch

    told(kind, tmp_path, story)


def test_changes_go_on_after_the_server_was_killed(tmp_path: Path) -> None:
    async def story() -> None:
        async with nats_server(tmp_path) as address, connected(address, [ROUTE]) as store:
            at = (await store.position()).revision
            assert await store.write_record(record(), 0)
            at = (await changed(store, at)).revision
            os.kill(int((tmp_path / "server.pid").read_text()), signal.SIGKILL)
            found, done = list[RequestRecord](), False
            while not found:
                try:
                    done = done or await store.write_record(record(RequestState.COMPLETED), at)
                    found = [kept.record for kept in (await store.changes(at, 1000)).records]
                except StoreAway:
                    continue
            assert [one.state for one in found] == [RequestState.COMPLETED]

    asyncio.run(story())


def test_jetstream_whose_server_is_killed_keeps_what_it_has_said_it_keeps(tmp_path: Path) -> None:
    """The server is killed between two requests, and is there again by itself."""

    async def story() -> None:
        async with nats_server(tmp_path) as address, connected(address, [ROUTE]) as store:
            await store.open_route(ROUTE)
            await store.add("chat", queued(0))
            os.kill(int((tmp_path / "server.pid").read_text()), signal.SIGKILL)
            while True:
                try:
                    await store.add("chat", queued(1))
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
        async with nats_server(tmp_path) as address, connected(address, [ROUTE]) as store:
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
            async with nats_server(tmp_path) as address, patiently_connected(address) as store:
                assert await store.letters() == []
                return address.url

        assert asyncio.run(story()) == f"nats://127.0.0.1:{wanted}"


def test_server_that_an_earlier_process_has_left_is_ended_first(tmp_path: Path) -> None:
    """A server that holds the lock of the folder, and whose parent is gone."""

    async def story() -> None:
        lock = take_lock(tmp_path / "server.lock")
        left = await asyncio.create_subprocess_exec("sleep", "600", pass_fds=[lock])
        os.close(lock)
        (tmp_path / "server.pid").write_text(str(left.pid))
        async with nats_server(tmp_path) as address, patiently_connected(address) as store:
            assert await left.wait() == -signal.SIGTERM
            assert await store.record(record().id) is None

    asyncio.run(story())


def test_connected_to_nobody_says_so_and_no_secret(tmp_path: Path) -> None:
    async def story() -> None:
        async with connected(Address("nats://user:secret@127.0.0.1:1"), [ROUTE], patience_seconds=0.5):
            raise AssertionError("nobody is there")

    with pytest.raises(NoServer, match=r"no NATS server that lets us in at 127\.0\.0\.1:1") as caught:
        asyncio.run(story())
    assert "secret" not in str(caught.value)
