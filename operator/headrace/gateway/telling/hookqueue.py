"""The requests whose callers are to be called, as they end: the records in JetStream, read by a consumer that remembers where it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig

from headrace.core.asking.hooks import DELAYS_SECONDS
from headrace.gateway.queues.connecting import away
from headrace.gateway.queues.jetstreamstore import RECORDS
from headrace.gateway.queues.store import Change
from headrace.gateway.telling.following import change

_CONSUMER = "webhooks"
_ACK_WAIT_SECONDS = 60.0
"""When a call is made again of which nobody has said how it went: longer than one takes."""


@dataclass(frozen=True, slots=True)
class Due:
    """A change of a request, until it is said to be done with."""

    change: Change
    calls: int
    """How often it has come, this time included."""
    token: object


class HookQueue(Protocol):
    """All changes of requests, each until it is done with. All methods raise `StoreAway`."""

    async def take(self, most: int, milliseconds: int) -> Sequence[Due]:
        """The next ones; waits so long for the first."""

    async def done(self, due: Due) -> None:
        """It does not come again."""

    async def later(self, due: Due, seconds: int) -> None:
        """It comes again after so long."""


class JetStreamHooks:
    """A `HookQueue` on the stream of the records: whoever writes a record need do nothing else for it to be called."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js
        self._messages: JetStreamContext.PullSubscription | None = None

    async def take(self, most: int, milliseconds: int) -> Sequence[Due]:
        """Fetch them."""
        with away():
            messages = self._messages = self._messages or await self._bound()
            try:
                found = await messages.fetch(most, timeout=milliseconds / 1000)
            except TimeoutError:
                return []
            except Exception:
                self._messages = None
                raise
            for mark in (message for message in found if not message.data):  # it marks the end of a record
                await mark.ack()
            return [_due(message) for message in found if message.data]

    async def done(self, due: Due) -> None:
        """Acknowledge it."""
        assert isinstance(due.token, Msg)
        with away():
            await due.token.ack()

    async def later(self, due: Due, seconds: int) -> None:
        """Have it delivered again."""
        assert isinstance(due.token, Msg)
        with away():
            await due.token.nak(seconds)

    async def _bound(self) -> JetStreamContext.PullSubscription:
        config = ConsumerConfig(
            durable_name=_CONSUMER,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=_ACK_WAIT_SECONDS,
            max_deliver=len(DELAYS_SECONDS) + 1,
        )
        await self._js.add_consumer(f"KV_{RECORDS}", config)
        return await self._js.pull_subscribe_bind(_CONSUMER, f"KV_{RECORDS}")


def _due(message: Msg) -> Due:
    return Due(change(message), message.metadata.num_delivered, message)
