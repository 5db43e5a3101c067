"""Requests under way, each in a task of its own, and how they are broken off when the time of their record is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass

from headrace_worker.engines.base import Work
from headrace_worker.engines.openai.endpoint import EndpointState, Ticket
from headrace_worker.engines.openai.verdicts import given_up


@dataclass(slots=True)
class Waiting:
    """A record that is to be sent, or is under way."""

    work: Work
    tier: int = 0
    """The lowest tier that it may go to."""
    avoid: str | None = None
    """Where it has failed last."""
    failures: int = 0


@dataclass(slots=True, eq=False)
class Flight:
    """A request under way."""

    waiting: Waiting
    endpoint: EndpointState
    ticket: Ticket
    task: asyncio.Task[None] | None = None


class Flights:
    """All requests under way."""

    def __init__(self, record_seconds: int | None, news: asyncio.Event) -> None:
        """`record_seconds` that a record has in all; `news` is set when a task has raised something."""
        self.raised: BaseException | None = None
        """What no task should raise: only what nobody has thought of, and that a key is missing."""
        self._record_seconds, self._news = record_seconds, news
        self._by_position: dict[int, Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._by_position)

    def begin(self, flight: Flight, ask: Callable[[Flight], Coroutine[None, None, None]]) -> None:
        """A request is sent."""
        self._by_position[flight.waiting.work.position] = flight
        flight.task = asyncio.create_task(ask(flight))
        self._tasks.add(flight.task)
        flight.task.add_done_callback(self._over)

    def land(self, flight: Flight) -> bool:
        """Whether somebody still wants to know what has come of a request; asked once, when something has."""
        position = flight.waiting.work.position
        if self._by_position.get(position) is not flight:
            return False
        del self._by_position[position]
        return True

    def break_off(self, positions: Collection[int], now: float) -> list[Work]:
        """Break off the requests of records that have had their time."""
        flights = [self._by_position.pop(position) for position in positions if position in self._by_position]
        for flight in flights:
            assert flight.task is not None, "it was made with the flight"
            flight.task.cancel()
            asked_seconds, endpoint = now - flight.ticket.sent_at, flight.endpoint
            endpoint.settle(flight.ticket, given_up(asked_seconds, self._record_seconds, endpoint.spec.name), now)
        return [flight.waiting.work for flight in flights]

    async def end(self) -> None:
        """Break off everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.raised = task.exception()
            self._news.set()
