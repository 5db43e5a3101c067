"""One who waits for requests: what is known of them when it begins to listen, and then each change, in order.

A listener keeps numbers and no records, so one that is slow costs little, and is told the latest state alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from heapq import heappop, heappush
from typing import NamedTuple, Protocol

from headrace.api.asking import RequestRecord
from headrace.api.base import JsonObject
from headrace.api.worker import Partial
from headrace.core.asking.life import has_ended
from headrace.core.asking.push import changed, check_count, growing, heard, refused, token_of, waiting
from headrace.core.openai.errors import ApiError, no_such
from headrace.gateway.queues.store import InQueue, Kept, Position
from headrace.gateway.tenants.rooms import Room
from headrace.gateway.together import together


class Whose(NamedTuple):
    """A request of one tenant."""

    namespace: str
    id: str


class Followed(Protocol):
    """What a listener needs of the reader that follows all records."""

    @property
    def recent(self) -> Mapping[Whose, Kept]:
        """Records that were just written, some of them."""

    @property
    def partials(self) -> Mapping[Whose, Partial]:
        """How far some answers have come."""

    @property
    def at(self) -> Position:
        """All up to here was told to the listeners."""

    def enter(self, whose: Whose, listener: Listener) -> None:
        """From now on it is told of the request."""

    def leave(self, those: Iterable[Whose], listener: Listener) -> None:
        """From now on it is not."""

    def forget(self, listener: Listener) -> None:
        """It has gone."""

    def now(self) -> int:
        """The time, in milliseconds since the epoch."""

    def told(self, record: RequestRecord, since: int) -> None:
        """An end is told on a connection that has last asked for anything then."""


class Listener:
    """One connection that waits for requests."""

    def __init__(self, reader: Followed, room: Room) -> None:
        """`room`: of the tenant whose requests it may wait for."""
        self._reader, self._room = reader, room
        self._since = reader.now()
        """When it has last begun to wait for anything."""
        self._heard: dict[str, int] = {}
        """The requests that it waits for, with the last revision that it knows of each."""
        self._due: list[tuple[int, str]] = []
        """What is to be told, a heap. A request is changed twice in its life, so it is not long."""
        self._growing: dict[str, None] = {}
        """Requests whose answers have grown since that was told; who is slow is told of the last growth alone, after all else."""
        self._said: deque[JsonObject] = deque()
        self._something, self._nothing_said = asyncio.Event(), asyncio.Event()
        self._nothing_said.set()
        self.has_ended = False
        """Nothing more will come on this connection, though there may be more to tell."""
        self.sent_away: ApiError | None = None
        """Why it has ended, where it has because its owner may not listen any more."""

    @property
    def namespace(self) -> str:
        """Of the tenant who listens."""
        return self._room.namespace

    @property
    def waits(self) -> bool:
        """Whether there is anything to wait for."""
        return bool(self._heard or self._said)

    async def add(self, wanted: Mapping[str, str | None]) -> list[str]:
        """Wait for these too, each from the change on whose token is given; returns those that do not exist. Raises `ApiError`."""
        check_count(len({*self._heard, *wanted}))
        self._since = self._reader.now()
        heard_of = {name: heard(token, self._reader.at.epoch) for name, token in wanted.items()}
        for name, revision in heard_of.items():
            self._heard[name] = revision
            self._reader.enter(self._whose(name), self)
        up_to = self._reader.at.revision  # what comes later is noted by the reader
        found = await together(self._room.known.look(name) for name in wanted)
        unknown = [name for name, one in zip(wanted, found, strict=True) if one is None]
        self.drop(unknown)
        for name, one in zip(wanted, found, strict=True):
            if isinstance(one, InQueue) and wanted[name] is None:
                self.say(waiting(await self._room.known.shown(one)))
            elif isinstance(one, Kept) and one.revision <= up_to:
                self._settle(name, one)
        return unknown

    def drop(self, request_ids: Iterable[str]) -> None:
        """Wait for these no more."""
        gone = [name for name in request_ids if self._heard.pop(name, None) is not None]
        for name in gone:
            self._growing.pop(name, None)
        self._reader.leave([self._whose(name) for name in gone], self)

    def note(self, request_id: str, revision: int) -> None:
        """A request has changed."""
        if revision > self._heard.get(request_id, revision):
            heappush(self._due, (revision, request_id))
            self._something.set()

    def note_growth(self, request_id: str) -> None:
        """The answer of a request has grown."""
        self._growing[request_id] = None
        self._something.set()

    def say(self, event: JsonObject) -> None:
        """Tell something that is no change."""
        self._said.append(event)
        self._nothing_said.clear()
        self._something.set()

    def say_unknown(self, request_id: str) -> None:
        """Tell that there is no such request."""
        self.say(refused(no_such("Request", request_id[:80]), request_id[:80]))

    async def all_said(self) -> None:
        """Wait until what is no change was taken: who asks for more than it reads is not heard meanwhile."""
        await self._nothing_said.wait()

    async def ready(self) -> None:
        """Wait until there may be something to take."""
        if not self.has_ended:
            await self._something.wait()

    async def take(self) -> JsonObject | None:
        """The next event; None when there is none now. Raises `StoreAway`."""
        if self._said:
            event = self._said.popleft()
            if not self._said:
                self._nothing_said.set()
            return event
        while self._due:
            revision, name = heappop(self._due)
            if revision > self._heard.get(name, revision) and (told := await self._event(name, revision)) is not None:
                return told
        while self._growing:
            del self._growing[name := next(iter(self._growing))]
            if (partial := self._reader.partials.get(self._whose(name))) is not None:
                return growing(partial)
        self._something.clear()
        return None

    def end(self) -> None:
        """Nothing more comes."""
        self.has_ended = True
        self._something.set()
        self._nothing_said.set()

    def send_away(self, error: ApiError) -> None:
        """Whoever listens may not any more."""
        self.sent_away = error
        self.end()

    def close(self) -> None:
        """Nobody listens any more."""
        self.drop([*self._heard])
        self._reader.forget(self)

    def _whose(self, name: str) -> Whose:
        return Whose(self._room.namespace, name)

    def _settle(self, name: str, found: Kept) -> None:
        """Note what was there at the beginning; an end that was heard of before is not waited for."""
        if found.revision > self._heard.get(name, found.revision):
            self.note(name, found.revision)
        elif has_ended(found.record):
            self.drop([name])

    async def _event(self, name: str, revision: int) -> JsonObject | None:
        """The event of a change; None when another has followed, which is told in its turn."""
        kept = self._reader.recent.get(self._whose(name))
        if kept is None or kept.revision != revision:
            kept = await self._room.store.record(name)
        if kept is None or kept.revision != revision:
            return None
        token = token_of(self._reader.at.epoch, revision)
        self._heard[name] = revision
        try:
            told = changed(token, await self._room.known.shown(kept))
        except ApiError as error:
            told = refused(error, name, token)
        if has_ended(kept.record):
            self._reader.told(kept.record, self._since)
            self.drop([name])
        return told
