"""Connections that are open for long, and whether those who have opened them may still: keys are taken back, and tokens lapse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Never

from starlette.requests import HTTPConnection

from headrace.core.openai.errors import ApiError
from headrace.core.tenancy.keys import unknown
from headrace.core.tenancy.staying import is_sent_away
from headrace.gateway.clocks import Clock
from headrace.gateway.endless import end_if_cancelled, keep_on
from headrace.gateway.tenants.entrance import tenant_of
from headrace.gateway.tenants.identities import Identities
from headrace.gateway.together import together

LOOK_MILLISECONDS = 5_000


@dataclass(slots=True, eq=False)
class _Stay:
    """One such connection."""

    connection: HTTPConnection
    send_away: Callable[[ApiError], None]
    known: int
    """When it was last known whose it is."""


class Stays:
    """All of them."""

    def __init__(self, identities: Identities, clock: Clock) -> None:
        self._identities, self._clock = identities, clock
        self._all: set[_Stay] = set()

    @contextmanager
    def stay(self, connection: HTTPConnection, send_away: Callable[[ApiError], None]) -> Iterator[None]:
        """One that was let in, while the block lasts; `send_away` is called, with the reason, once it may stay no longer."""
        one = _Stay(connection, send_away, self._clock.now())
        self._all.add(one)
        try:
            yield
        finally:
            self._all.discard(one)

    async def run(self) -> Never:
        """Look at all of them now and then, until cancelled."""
        await keep_on("open streams", self._look_on, self._clock)
        raise AssertionError("it has no end")

    async def step(self) -> None:
        """Look at all of them."""
        await together(self._look_at(one) for one in [*self._all])

    async def _look_on(self) -> Never:
        while True:
            await self._clock.rest(LOOK_MILLISECONDS)
            await self.step()
            end_if_cancelled()

    async def _look_at(self, one: _Stay) -> None:
        try:
            tenant = await self._identities.tenant(one.connection)
        except ApiError as error:
            if is_sent_away(error, one.known, self._clock.now()):
                self._send_away(one, error)
            return
        if tenant.namespace != tenant_of(one.connection).namespace:
            self._send_away(one, unknown("the key is another tenant's now"))
        one.known = self._clock.now()

    def _send_away(self, one: _Stay, error: ApiError) -> None:
        self._all.discard(one)
        one.send_away(error)
