"""Calling the callers of requests that have ended: signed, at most four times, and only where that is allowed."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Never

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from headrace.api.addresses import AddressPolicy
from headrace.api.asking import RequestRecord, Webhooks
from headrace.core.asking.hooks import keys_in, message, pause_after, policy, signed, target
from headrace.core.asking.life import has_ended
from headrace.core.asking.requests import record_object
from headrace.core.openai.errors import ApiError
from headrace.gateway.clocks import Clock
from headrace.gateway.endless import forever, keep_on
from headrace.gateway.telling.hookqueue import Due, HookQueue
from headrace.gateway.together import AT_ONCE, together
from headrace.gateway.watch import UNWATCHED, Watch

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 10.0
_WAIT_MILLISECONDS = 2000


class Refused(Exception):
    """A call has not come through; says why."""


class Callers:
    """Calls those who have asked for it."""

    def __init__(
        self,
        webhooks: Callable[[str], Webhooks | None],
        queue: HookQueue,
        clock: Clock,
        watch: Watch = UNWATCHED,
    ) -> None:
        """`webhooks`: those of the tenant who has a namespace; what they say may change at any time."""
        self._webhooks, self._queue, self._clock, self._watch = webhooks, queue, clock, watch

    async def run(self) -> Never:
        """Call until cancelled."""
        await keep_on("webhooks", self._call_on, self._clock)

    async def step(self, clients: Clients) -> None:
        """Make the calls that are due."""
        await together(self._see_to(due, clients) for due in await self._queue.take(AT_ONCE, _WAIT_MILLISECONDS))

    async def _call_on(self) -> Never:
        async with AsyncExitStack() as stack:
            clients = Clients(stack)
            await forever(partial(self.step, clients))

    async def _see_to(self, due: Due, clients: Clients) -> None:
        record = due.change.kept.record
        if record.webhook is not None and has_ended(record):
            try:
                await self._call(record, record.webhook, self._webhooks(due.change.namespace), clients)
                self._watch.called("delivered")
            except Refused as refused:
                pause = pause_after(due.calls)
                self._watch.called("failed" if pause is not None else "given_up")
                logger.warning("webhook of %s, call %d: %s", record.id, due.calls, refused)
                if pause is not None:
                    await self._queue.later(due, pause)
                    return
        await self._queue.done(due)

    async def _call(self, record: RequestRecord, url: str, webhooks: Webhooks | None, clients: Clients) -> None:
        """Make one call. Raises `Refused`."""
        if webhooks is None:
            raise Refused("there are no webhooks for this tenant any more")
        now = datetime.fromtimestamp(self._clock.now() / 1000, UTC)
        try:
            target(url, webhooks)  # what is allowed may have changed since it was accepted
            keys = keys_in(await asyncio.to_thread(Path(webhooks.keys_file).read_text))
        except ApiError as error:
            raise Refused(error.message) from error
        except (OSError, ValueError) as error:
            raise Refused(f"{webhooks.keys_file}: {error}") from error
        text = message(record_object(record), now)
        headers = signed(record.id, text, keys, now)
        try:
            async with clients.of(webhooks).post(
                url, data=text.encode(), headers=headers, allow_redirects=False
            ) as answer:
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Refused(str(error) or type(error).__name__) from error
        if not 200 <= status < 300:
            raise Refused(f"it answered {status}")


class Clients:
    """A client for each list of what may be called."""

    def __init__(self, stack: AsyncExitStack) -> None:
        """`stack` closes them."""
        self._stack = stack
        self._known: dict[Webhooks, aiohttp.ClientSession] = {}

    def of(self, webhooks: Webhooks) -> aiohttp.ClientSession:
        """The one that reaches what they allow, and nothing else."""
        if webhooks not in self._known:
            connector = aiohttp.TCPConnector(resolver=_Resolver(policy(webhooks)), use_dns_cache=False)
            timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
            client = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False)
            self._stack.push_async_callback(client.close)
            self._known[webhooks] = client
        return self._known[webhooks]


class _Resolver(AbstractResolver):
    """Gives the addresses that are allowed. It is asked right before a connection is made, so that no name changes its mind between."""

    def __init__(self, allowed: AddressPolicy) -> None:
        self._allowed, self._names = allowed, ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises `OSError` when there is none. The host is as the client reads the URL, so its name is looked at once more."""
        found = await self._names.resolve(host, port, family) if self._allowed.allows_host(host) else []
        allowed = [one for one in found if self._allowed.allows_address(one["host"])]
        if not allowed:
            raise OSError(f"{host} has no address that may be called")
        return allowed

    async def close(self) -> None:
        """Close the other one."""
        await self._names.close()
