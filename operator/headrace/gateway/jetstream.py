"""Requests in NATS JetStream: a work queue for each route, and buckets of keys and values for all that has left them.

What is in a queue is there until it is acknowledged, and comes again when that takes too long. Records are replaced only by who has read
the last version of them, which the server checks. Deduplication by `Nats-Msg-Id` is a convenience: what holds is the record.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    KeyValueConfig,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import APIError, KeyNotFoundError, KeyWrongLastSequenceError, NoKeysError, NotFoundError
from nats.js.kv import KeyValue

from headrace.api.asking import ClosedWindow, KnownKey, QueuedRequest, RequestRecord, RequestRoute
from headrace.core.asking.keys import KEPT_SECONDS as KEYS_KEPT_SECONDS
from headrace.gateway.connecting import away, connection
from headrace.gateway.following import Following, kept
from headrace.gateway.natsserver import PATIENCE_SECONDS, Address, NoServer
from headrace.gateway.store import Changes, Delivery, InQueue, Kept, Position, QueueFull, StoreAway

RECORDS_KEPT_SECONDS = 7 * 86_400
"""How long a record is kept after it was last changed: longer than a request can be under way, and than a key is known."""
ACK_WAIT_SECONDS = 120.0
"""When a request comes again whose window did not come about: longer than a window is open, far shorter than anyone would wait."""
ANSWER_SECONDS = 5.0
"""How long a server may take to answer before it counts as away."""
MARKER_SECONDS = 120.0
"""How long the mark stays that a window is gone."""
_CONSUMER = "windows"
_STORE_FAILED = 10077
"""Error code of the server for a message that does not fit into its stream."""


@asynccontextmanager
async def connected(
    address: Address,
    routes: Sequence[RequestRoute],
    patience_seconds: float = PATIENCE_SECONDS,
    answer_seconds: float = ANSWER_SECONDS,
) -> AsyncIterator[JetStream]:
    """The store of these routes at a server. Raises `NoServer` when that is not there now, or keeps nothing.

    `patience_seconds` are for the connection, `answer_seconds` for each answer on it.
    """
    async with connection(address, patience_seconds) as client:
        store = JetStream(client, answer_seconds)
        try:
            await store.prepare(routes)
        except StoreAway as error:
            message = f"the NATS server at {address.host} keeps nothing: {error}; it must have JetStream"
            raise NoServer(message) from error
        yield store


class JetStream:
    """A `Store` behind a connection."""

    def __init__(self, client: Client, answer_seconds: float) -> None:
        self.js: JetStreamContext = client.jetstream(timeout=answer_seconds)
        self._records: KeyValue
        self._windows: KeyValue
        self._keys: KeyValue
        self._letters: KeyValue
        self._queues: dict[str, JetStreamContext.PullSubscription] = {}
        self._following = Following(self.js, "KV_headrace-records")

    async def prepare(self, routes: Sequence[RequestRoute]) -> None:
        """Make the buckets and the queues, unless they are there. Raises `StoreAway`."""
        with away():
            self._records = await self._bucket("records", RECORDS_KEPT_SECONDS)
            self._windows = await self._bucket("windows", None)
            self._letters = await self._bucket("letters", RECORDS_KEPT_SECONDS)
            self._keys = await self._bucket("keys", KEYS_KEPT_SECONDS)
            for route in routes:
                await self._stream(route)

    async def open_route(self, route: RequestRoute) -> None:
        """Begin with a new consumer, for the old one waits for acknowledgements that nobody will send."""
        with away():
            if (old := self._queues.pop(route.name, None)) is not None:
                with suppress(NatsError):  # the connection that it was made on may be gone
                    await old.unsubscribe()
            with suppress(NotFoundError):
                await self.js.delete_consumer(_stream(route.name), _CONSUMER)
            config = ConsumerConfig(
                durable_name=_CONSUMER,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=ACK_WAIT_SECONDS,
                max_ack_pending=2 * route.window.max_batch_size,
            )
            await self.js.add_consumer(_stream(route.name), config)
            self._queues[route.name] = await self.js.pull_subscribe_bind(_CONSUMER, _stream(route.name))

    async def add(self, route: str, request: QueuedRequest) -> None:
        """Publish it, and wait until it is written."""
        headers = {"Nats-Msg-Id": request.id}
        with away():
            try:
                await self.js.publish(_subject(route, request.id), _encoded(request), headers=headers)
            except APIError as error:
                if error.err_code == _STORE_FAILED and "maximum" in (error.description or ""):
                    raise QueueFull from error
                raise

    async def find(self, route: str, request_id: str) -> InQueue | None:
        """Look for its message, and how many there are from the first to it."""
        with away():
            try:
                message = await self.js.get_last_msg(_stream(route), _subject(route, request_id))
            except NotFoundError:
                return None
            state = (await self.js.stream_info(_stream(route))).state
            assert message.seq is not None
            position = min(message.seq - state.first_seq + 1, state.messages)
            return InQueue(QueuedRequest.model_validate_json(message.data or b""), max(1, position))

    async def take(self, route: str, most: int, milliseconds: int) -> Sequence[Delivery]:
        """Fetch what is there, or wait for the first."""
        with away():
            try:
                messages = await self._queues[route].fetch(most, timeout=milliseconds / 1000)
            except TimeoutError:
                return []
            return [_delivery(message) for message in messages]

    async def forget(self, delivery: Delivery) -> None:
        """Acknowledge it; if that is lost it comes again, and is known then."""
        message = delivery.token
        assert isinstance(message, Msg)
        with away():
            await message.ack()

    async def record(self, request_id: str) -> Kept | None:
        """Read it from the leader: what was written is seen."""
        entry = await _entry(self._records, request_id)
        return kept(entry.value or b"", entry.revision or 0) if entry else None

    async def write_record(self, record: RequestRecord, revision: int) -> bool:
        """Write it if the last version is the one that was read."""
        return await _is_first(lambda: self._records.update(record.id, _encoded(record), last=revision))

    async def position(self) -> Position:
        """Ask for it."""
        with away():
            return await self._following.position()

    async def changes(self, after: int, milliseconds: int) -> Changes:
        """Go on reading, or begin there."""
        with away():
            return await self._following.read(after, milliseconds)

    async def windows(self, route: str) -> Sequence[ClosedWindow]:
        """Read them all."""
        with away():
            try:
                batches = await self._windows.keys()
            except NoKeysError:
                return []
        found = [await self.window(batch) for batch in batches]
        return [window for window in found if window is not None and window.route == route]

    async def window(self, batch: str) -> ClosedWindow | None:
        """Read it."""
        entry = await _entry(self._windows, batch)
        return ClosedWindow.model_validate_json(entry.value or b"") if entry else None

    async def write_window(self, window: ClosedWindow) -> None:
        """Write it."""
        with away():
            await self._windows.put(window.batch, _encoded(window))

    async def drop_window(self, batch: str) -> None:
        """Put a mark in its place, which goes by itself: there are very many windows in time."""
        with away():
            await self._windows.purge(batch, msg_ttl=MARKER_SECONDS)

    async def add_letter(self, request_id: str) -> None:
        """Write it, unless it is there."""
        await _is_first(lambda: self._letters.create(request_id, b"-"))

    async def letters(self) -> Sequence[str]:
        """Read their names alone."""
        with away():
            try:
                return await self._letters.keys()
            except NoKeysError:
                return []

    async def drop_letter(self, request_id: str) -> None:
        """Put a mark in its place, as for a window."""
        with away():
            await self._letters.purge(request_id, msg_ttl=MARKER_SECONDS)

    async def remember_key(self, name: str, key: KnownKey) -> KnownKey:
        """Write it if nothing is there; else read what is."""
        while not await _is_first(lambda: self._keys.create(name, _encoded(key))):
            if (entry := await _entry(self._keys, name)) is not None:
                return KnownKey.model_validate_json(entry.value or b"")
        return key

    async def _bucket(self, name: str, seconds: int | None) -> KeyValue:
        """Read from the leader alone, so that nobody misses what was just written."""
        config = KeyValueConfig(
            bucket=f"headrace-{name}", history=1, ttl=seconds, storage=StorageType.FILE, direct=False
        )
        return await self.js.create_key_value(config)

    async def _stream(self, route: RequestRoute) -> None:
        """Have the stream of a route, with the bound that the route has now."""
        config = StreamConfig(
            name=_stream(route.name),
            subjects=[_subject(route.name, "*")],
            retention=RetentionPolicy.WORK_QUEUE,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_msgs=route.max_queued,
            max_msgs_per_subject=1,
            duplicate_window=120,
        )
        try:
            await self.js.stream_info(_stream(route.name))
        except NotFoundError:
            await self.js.add_stream(config)
        else:
            await self.js.update_stream(config)


def _stream(route: str) -> str:
    return f"headrace-requests-{route}"


def _subject(route: str, request_id: str) -> str:
    return f"headrace.requests.{route}.{request_id}"


def _encoded(model: QueuedRequest | RequestRecord | ClosedWindow | KnownKey) -> bytes:
    return model.model_dump_json(by_alias=True, exclude_none=True).encode()


def _delivery(message: Msg) -> Delivery:
    return Delivery(QueuedRequest.model_validate_json(message.data), message)


async def _entry(bucket: KeyValue, key: str) -> KeyValue.Entry | None:
    with away():
        try:
            return await bucket.get(key)
        except KeyNotFoundError:
            return None


async def _is_first(write: Callable[[], Awaitable[Any]]) -> bool:
    """Whether the write was done; False when another was first."""
    with away():
        try:
            await write()
        except KeyWrongLastSequenceError:
            return False
        return True
