"""Following the records in JetStream as they are written: in order, with none left out, whatever becomes of connections and servers."""

from __future__ import annotations

from contextlib import suppress

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from headrace.api.asking import RequestRecord
from headrace.gateway.queues.store import Change, Changes, Kept, Position

_AT_ONCE = 256
_INACTIVE_SECONDS = 300.0
"""When the server forgets a reader that asks for nothing."""


def kept(data: bytes, revision: int) -> Kept:
    """A record as it was written."""
    return Kept(RequestRecord.model_validate_json(data), revision, len(data))


def change(message: Msg) -> Change:
    """The same, with whose it is, which its subject says: `$KV.BUCKET.NAMESPACE.ID`."""
    return Change(message.subject.split(".")[2], kept(message.data, message.metadata.sequence.stream))


class Following:
    """A reader of one bucket. What is delivered is numbered, so a gap is seen, and then reading begins again where it was."""

    def __init__(self, js: JetStreamContext, stream: str) -> None:
        """`stream`: that of the bucket."""
        self._js, self._stream = js, stream
        self._messages: JetStreamContext.PullSubscription | None = None
        self._is_whole = False
        """Whether all that was delivered has come."""
        self._delivered, self._revision = 0, 0
        """The last message, as the consumer and as the stream count them."""

    async def position(self) -> Position:
        """Where the bucket is; it is named after the moment in which it was made."""
        info = await self._js.stream_info(self._stream)
        assert info.created is not None
        return Position(f"{int(info.created.timestamp() * 1000):x}", info.state.last_seq)

    async def read(self, after: int, milliseconds: int) -> Changes:
        """What was written after a revision."""
        messages = self._messages
        if messages is None or not self._is_whole or after != self._revision:
            messages = await self._begin(after)
        self._is_whole = False  # until that is known
        try:
            found = await messages.fetch(_AT_ONCE, timeout=milliseconds / 1000)
        except TimeoutError:
            found = []
        records: list[Change] = []
        for message in found:
            number = message.metadata.sequence
            if number.consumer != self._delivered + 1:
                return Changes(records, self._revision)
            self._delivered, self._revision = number.consumer, number.stream
            if message.data:  # else it marks the end of a record
                records.append(change(message))
        self._is_whole = True
        return Changes(records, self._revision)

    async def _begin(self, after: int) -> JetStreamContext.PullSubscription:
        """A new consumer, for what comes after a revision."""
        if (old := self._messages) is not None:
            self._messages = None
            with suppress(NatsError):  # the connection that it was made on may be gone
                await old.unsubscribe()
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=_INACTIVE_SECONDS,
            mem_storage=True,
        )
        info = await self._js.add_consumer(self._stream, config)
        self._delivered, self._revision = 0, after
        self._messages = await self._js.pull_subscribe_bind(info.name, self._stream)
        return self._messages
