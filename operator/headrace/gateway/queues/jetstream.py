"""Requests in NATS JetStream: a work queue for each route of each tenant, and buckets of keys and values for all that has left them.

What is in a queue is there until it is acknowledged, and comes again when that takes too long. Records are replaced only by who has read
the last version of them, which the server checks. Deduplication by `Nats-Msg-Id` is a convenience: what holds is the record.

Every subject and every key begins with the namespace of a tenant, and every queue is one's own: nobody finds, fills or empties another's.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import KeyValueConfig, StorageType, StreamState
from nats.js.errors import KeyWrongLastSequenceError, NotFoundError
from nats.js.kv import KeyValue

from headrace.api.asking import QueuedRequest
from headrace.core.asking.keys import KEPT_SECONDS as KEYS_KEPT_SECONDS
from headrace.gateway.queues.connecting import away, connection
from headrace.gateway.queues.jetstreamstore import RECORDS, Buckets, JetStreamStore, lane_of, names, stream_of
from headrace.gateway.queues.natsserver import PATIENCE_SECONDS, Address, NoServer
from headrace.gateway.queues.store import Changes, Lane, Position, StoreAway, Waiting
from headrace.gateway.telling.following import Following
from headrace.gateway.together import together

SECRETS = "headrace-secrets"
"""Name of the bucket of what the gateways alone know."""
RECORDS_KEPT_SECONDS = 7 * 86_400
"""How long a record is kept after it was last changed: longer than a request can be under way, and than a key is known."""
ANSWER_SECONDS = 5.0
"""How long a server may take to answer before it counts as away."""


@asynccontextmanager
async def connected(
    address: Address, patience_seconds: float = PATIENCE_SECONDS, answer_seconds: float = ANSWER_SECONDS
) -> AsyncIterator[JetStream]:
    """The stores at a server. Raises `NoServer` when that is not there now, or keeps nothing.

    `patience_seconds` are for the connection, `answer_seconds` for each answer on it.
    """
    async with connection(address, patience_seconds) as client:
        stores = JetStream(client, answer_seconds)
        try:
            await stores.prepare()
        except StoreAway as error:
            message = f"the NATS server at {address.host} keeps nothing: {error}; it must have JetStream"
            raise NoServer(message) from error
        yield stores


class JetStream:
    """`Stores` behind a connection."""

    def __init__(self, client: Client, answer_seconds: float) -> None:
        self.client = client
        self.js: JetStreamContext = client.jetstream(timeout=answer_seconds)
        self._answer_seconds = answer_seconds
        self._buckets: Buckets
        self._known: dict[str, JetStreamStore] = {}
        self._following = Following(self.js, f"KV_{RECORDS}")

    async def prepare(self) -> None:
        """Make the buckets, unless they are there. Raises `StoreAway`."""
        with away():
            self._buckets = Buckets(
                records=await self._bucket(RECORDS, RECORDS_KEPT_SECONDS),
                windows=await self._bucket("headrace-windows", None),
                letters=await self._bucket("headrace-letters", RECORDS_KEPT_SECONDS),
                keys=await self._bucket("headrace-keys", KEYS_KEPT_SECONDS),
                answer_seconds=self._answer_seconds,
            )

    def of(self, namespace: str) -> JetStreamStore:
        """The same each time: it knows which queues there are."""
        if namespace not in self._known:
            self._known[namespace] = JetStreamStore(namespace, self.js, self._buckets)
        return self._known[namespace]

    async def secret(self, name: str) -> str:
        """Make one up, unless there is one."""
        with away():
            bucket = await self._bucket(SECRETS, None)
            with suppress(KeyWrongLastSequenceError):
                await bucket.create(name, secrets.token_hex(32).encode())
            return ((await bucket.get(name)).value or b"").decode()

    async def lanes(self) -> set[Lane]:
        """All queues that are not empty, and all windows."""
        with away():
            found = {lane for lane in [lane_of(name) for name, _ in await self._full()] if lane is not None}
            windows = [key.split(".", 1) for key in await names(self._buckets.windows, ">", self._answer_seconds)]
        for namespace, batch in windows:
            if (window := await self.of(namespace).window(batch)) is not None:
                found.add(Lane(namespace, window.route))
        return found

    async def position(self) -> Position:
        """Ask for it."""
        with away():
            return await self._following.position()

    async def changes(self, after: int, milliseconds: int) -> Changes:
        """Go on reading, or begin there."""
        with away():
            return await self._following.read(after, milliseconds)

    async def waiting(self) -> dict[Lane, Waiting]:
        """Ask for the state of each queue, and for its first message."""
        with away():
            full = {lane: state for name, state in await self._full() if (lane := lane_of(name)) is not None}
            firsts = await together(self._accepted(lane, state.first_seq) for lane, state in full.items())
        return {lane: Waiting(state.messages, since) for (lane, state), since in zip(full.items(), firsts, strict=True)}

    async def _accepted(self, lane: Lane, number: int) -> int | None:
        try:
            message = await self.js.get_msg(stream_of(lane), seq=number)
        except NotFoundError:
            return None
        return QueuedRequest.model_validate_json(message.data or b"").accepted

    async def _full(self) -> list[tuple[str, StreamState]]:
        """All streams that have anything, by their names; the server tells some at a time."""
        found, seen = list[tuple[str, StreamState]](), 0
        while page := await self.js.streams_info(offset=seen):
            seen += len(page)
            found += [(info.config.name, info.state) for info in page if info.config.name and info.state.messages]
        return found

    async def _bucket(self, name: str, seconds: int | None) -> KeyValue:
        """Read from the leader alone, so that nobody misses what was just written."""
        config = KeyValueConfig(bucket=name, history=1, ttl=seconds, storage=StorageType.FILE, direct=False)
        return await self.js.create_key_value(config)
