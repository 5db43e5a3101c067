"""How pools are, also where several gateways share the queues: then the one that leads knows, and the others ask it.

Questions and answers are messages that nobody keeps. Who has no answer says nothing about the pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Never

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from headrace.api.base import JsonObject
from headrace.core.asking.pool import pool_object
from headrace.gateway.clocks import Clock
from headrace.gateway.endless import keep_on
from headrace.gateway.gathering.pool import Pool
from headrace.gateway.queues.connecting import away

_SUBJECT = "headrace.pools"
_ANSWER_SECONDS = 2.0
_REST_MILLISECONDS = 60_000


class PoolNews:
    """Of the pools of all routes that have one."""

    def __init__(self, pools: Mapping[str, Pool], client: Client, clock: Clock) -> None:
        self._pools, self._client, self._clock = pools, client, clock

    async def of(self, route: str, namespace: str) -> JsonObject | None:
        """How the pool of a route is, with the requests of a tenant; None where it has none, or where nobody who knows answers."""
        pool = self._pools.get(route)
        if pool is None:
            return None
        return _shown(pool, namespace) if pool.is_at_work else await self._ask(route, namespace)

    async def tell(self) -> Never:
        """Answer those who do not lead, until cancelled."""
        await keep_on("pools", self._tell, self._clock)
        raise AssertionError("it has no end")

    async def _ask(self, route: str, namespace: str) -> JsonObject | None:
        try:
            said = await self._client.request(f"{_SUBJECT}.{namespace}.{route}", timeout=_ANSWER_SECONDS)
        except (TimeoutError, NatsError, OSError):  # nobody leads now, or NATS is away
            return None
        found: JsonObject = orjson.loads(said.data)
        return found

    async def _tell(self) -> Never:
        with away():
            heard = await self._client.subscribe(f"{_SUBJECT}.*.*", cb=self._asked)
        try:
            while True:
                await self._clock.rest(_REST_MILLISECONDS)
        finally:
            await heard.unsubscribe()

    async def _asked(self, message: Msg) -> None:
        namespace, route = message.subject.split(".")[-2:]
        if (pool := self._pools.get(route)) is not None and pool.is_at_work:
            with away():
                await message.respond(orjson.dumps(_shown(pool, namespace)))


def _shown(pool: Pool, namespace: str) -> JsonObject:
    return pool_object(pool.waiting(namespace), [*pool.workers], pool.trouble)
