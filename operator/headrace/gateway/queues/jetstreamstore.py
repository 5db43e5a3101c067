"""What is kept in JetStream of the requests of one tenant."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import (
    APIError,
    KeyNotFoundError,
    KeyWrongLastSequenceError,
    NoStreamResponseError,
    NotFoundError,
)
from nats.js.kv import KeyValue

from headrace.api.asking import ClosedWindow, KnownKey, QueuedRequest, RequestRecord, RequestRoute
from headrace.gateway.queues.connecting import away
from headrace.gateway.queues.store import Delivery, InQueue, Kept, Lane, QueueFull
from headrace.gateway.telling.following import kept

RECORDS = "headrace-records"
"""Name of the bucket of records."""
ACK_WAIT_SECONDS = 120.0
"""When a request comes again whose window did not come about: longer than a window is open, far shorter than anyone would wait."""
MARKER_SECONDS = 120.0
"""How long the mark stays that a window is gone."""
_CONSUMER = "windows"
_STORE_FAILED = 10077
"""Error code of the server for a message that does not fit into its stream."""
_STREAM = re.compile(r"headrace-requests_([^_]+)_([^_]+)")


@dataclass(frozen=True, slots=True)
class Buckets:
    """Keys and values, of all tenants."""

    records: KeyValue
    windows: KeyValue
    letters: KeyValue
    keys: KeyValue
    answer_seconds: float


class JetStreamStore:
    """A `Store`."""

    def __init__(self, namespace: str, js: JetStreamContext, buckets: Buckets) -> None:
        self._namespace, self._js = namespace, js
        self._buckets = buckets
        self._room: dict[str, int] = {}
        """What each queue was last told that it may hold, by its route."""
        self._queues: dict[str, JetStreamContext.PullSubscription] = {}

    async def open_route(self, route: RequestRoute) -> None:
        """Begin with a new consumer, for the old one waits for acknowledgements that nobody will send."""
        with away():
            await self._open_stream(route)
            if (old := self._queues.pop(route.name, None)) is not None:
                with suppress(NatsError):  # the connection that it was made on may be gone
                    await old.unsubscribe()
            with suppress(NotFoundError):
                await self._js.delete_consumer(self._stream(route.name), _CONSUMER)
            config = ConsumerConfig(
                durable_name=_CONSUMER,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=ACK_WAIT_SECONDS,
                max_ack_pending=2 * route.window.max_batch_size,
            )
            await self._js.add_consumer(self._stream(route.name), config)
            self._queues[route.name] = await self._js.pull_subscribe_bind(_CONSUMER, self._stream(route.name))

    async def add(self, route: RequestRoute, request: QueuedRequest) -> None:
        """Publish it, and wait until it is written."""
        headers = {"Nats-Msg-Id": request.id}
        with away():
            if self._room.get(route.name) != route.max_queued:
                await self._bound_stream(route)
            try:
                subject = self._subject(route.name, request.id)
                await self._js.publish(subject, _encoded(request), headers=headers)
            except NoStreamResponseError:  # somebody has taken it away
                self._room.pop(route.name, None)
                raise
            except APIError as error:
                if error.err_code == _STORE_FAILED and "maximum" in (error.description or ""):
                    raise QueueFull from error
                raise

    async def find(self, route: str, request_id: str) -> InQueue | None:
        """Look for its message, and how many there are from the first to it."""
        with away():
            try:
                message = await self._js.get_last_msg(self._stream(route), self._subject(route, request_id))
            except NotFoundError:
                return None
            state = (await self._js.stream_info(self._stream(route))).state
            assert message.seq is not None
            position = min(message.seq - state.first_seq + 1, state.messages)
            return InQueue(QueuedRequest.model_validate_json(message.data or b""), max(1, position))

    async def depth(self, route: str) -> int:
        """Ask the stream, if there is one."""
        with away():
            try:
                return (await self._js.stream_info(self._stream(route))).state.messages
            except NotFoundError:
                return 0

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
        entry = await _entry(self._buckets.records, self._key(request_id))
        return kept(entry.value or b"", entry.revision or 0) if entry else None

    async def write_record(self, record: RequestRecord, revision: int) -> bool:
        """Write it if the last version is the one that was read."""
        return await _is_first(
            lambda: self._buckets.records.update(self._key(record.id), _encoded(record), last=revision)
        )

    async def windows(self, route: str) -> Sequence[ClosedWindow]:
        """Read them all."""
        with away():
            batches = await self._names(self._buckets.windows)
        found = [await self.window(batch) for batch in batches]
        return [window for window in found if window is not None and window.route == route]

    async def window(self, batch: str) -> ClosedWindow | None:
        """Read it."""
        entry = await _entry(self._buckets.windows, self._key(batch))
        return ClosedWindow.model_validate_json(entry.value or b"") if entry else None

    async def write_window(self, window: ClosedWindow) -> None:
        """Write it."""
        with away():
            await self._buckets.windows.put(self._key(window.batch), _encoded(window))

    async def drop_window(self, batch: str) -> None:
        """Put a mark in its place, which goes by itself: there are very many windows in time."""
        with away():
            await self._buckets.windows.purge(self._key(batch), msg_ttl=MARKER_SECONDS)

    async def add_letter(self, request_id: str) -> None:
        """Write it, unless it is there."""
        await _is_first(lambda: self._buckets.letters.create(self._key(request_id), b"-"))

    async def letters(self) -> Sequence[str]:
        """Read their names alone."""
        with away():
            return await self._names(self._buckets.letters)

    async def drop_letter(self, request_id: str) -> None:
        """Put a mark in its place, as for a window."""
        with away():
            await self._buckets.letters.purge(self._key(request_id), msg_ttl=MARKER_SECONDS)

    async def remember_key(self, name: str, key: KnownKey) -> KnownKey:
        """Write it if nothing is there; else read what is."""
        while not await _is_first(lambda: self._buckets.keys.create(self._key(name), _encoded(key))):
            if (entry := await _entry(self._buckets.keys, self._key(name))) is not None:
                return KnownKey.model_validate_json(entry.value or b"")
        return key

    async def _open_stream(self, route: RequestRoute) -> None:
        """Have the stream of a route; one that is there keeps its bound until something is added."""
        try:
            await self._js.stream_info(self._stream(route.name))
        except NotFoundError:
            await self._bound_stream(route)

    async def _bound_stream(self, route: RequestRoute) -> None:
        """Have the stream of a route, with the bound that the route has now."""
        config = StreamConfig(
            name=self._stream(route.name),
            subjects=[self._subject(route.name, "*")],
            retention=RetentionPolicy.WORK_QUEUE,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_msgs=route.max_queued,
            max_msgs_per_subject=1,
            duplicate_window=120,
        )
        try:
            await self._js.stream_info(self._stream(route.name))
        except NotFoundError:
            await self._js.add_stream(config)
        else:
            await self._js.update_stream(config)
        self._room[route.name] = route.max_queued

    async def _names(self, bucket: KeyValue) -> list[str]:
        found = await names(bucket, f"{self._namespace}.>", self._buckets.answer_seconds)
        return [key.removeprefix(f"{self._namespace}.") for key in found]

    def _key(self, name: str) -> str:
        return f"{self._namespace}.{name}"

    def _stream(self, route: str) -> str:
        return stream_of(Lane(self._namespace, route))

    def _subject(self, route: str, request_id: str) -> str:
        return f"headrace.requests.{self._namespace}.{route}.{request_id}"


def stream_of(lane: Lane) -> str:
    """The name of the stream of a queue."""
    return f"headrace-requests_{lane.namespace}_{lane.route}"


def lane_of(stream: str) -> Lane | None:
    """Whose queue a stream is; None for one that is none."""
    found = _STREAM.fullmatch(stream)
    return Lane(found[1], found[2]) if found is not None else None


async def names(bucket: KeyValue, keys: str, answer_seconds: float) -> list[str]:
    """All keys of a pattern that have a value, in the order in which they were written."""
    watcher: Any = await bucket.watch(keys, ignore_deletes=True, meta_only=True)  # it has no types
    found = list[str]()
    try:
        while (entry := await watcher.updates(answer_seconds)) is not None:
            found.append(entry.key)
    finally:
        await watcher.stop()
    return found


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
