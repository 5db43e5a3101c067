"""Telling those who wait what has become of requests: one reader follows all records, and wakes the listeners to each.

A listener begins with what is known now and goes on with what is written from then on, in order and with nothing between the two left
out: the reader has come to some revision when a listener begins, all up to that is looked up, and all after it will come by. A listener
keeps numbers and no records, so one that is slow costs little, and is told the latest state alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Mapping
from heapq import heappop, heappush

from cachetools import LRUCache

from headrace.api.base import JsonObject
from headrace.core.asking.life import has_ended
from headrace.core.asking.push import changed, check_count, heard, refused, token_of, waiting
from headrace.core.openai.errors import ApiError, no_such
from headrace.gateway.clocks import Clock
from headrace.gateway.known import Known
from headrace.gateway.store import InQueue, Kept, Position, Store, StoreAway
from headrace.gateway.together import together

logger = logging.getLogger(__name__)

_WAIT_MILLISECONDS = 2000
_AFTER_FAILURE_MILLISECONDS = 500
_RECENT_BYTES = 16 * 2**20


class Pushes:
    """The reader, and all listeners."""

    def __init__(self, store: Store, known: Known, clock: Clock) -> None:
        self.store, self.known = store, known
        self._clock = clock
        self.at = Position("", 0)
        """All up to here was told to the listeners."""
        self.recent: LRUCache[str, Kept] = LRUCache(_RECENT_BYTES, getsizeof=lambda kept: kept.size + 1)
        """Records that somebody waits for, as they were written: not all who wait need read them again."""
        self._listeners: dict[str, set[Listener]] = {}
        self._all: set[Listener] = set()
        self._is_stopped = False

    async def begin(self) -> None:
        """Find out where the store is. Raises `StoreAway`."""
        self.at = await self.store.position()

    async def run(self) -> None:
        """Read on until cancelled."""
        while True:
            try:
                await self._follow()
            except StoreAway as error:
                logger.warning("pushes: %s; it is tried again", error)
            except Exception:
                logger.exception("pushes: this should not have happened; it is tried again")
            await self._clock.rest(_AFTER_FAILURE_MILLISECONDS)

    async def step(self) -> None:
        """Wait for changes, and tell them. Raises `StoreAway`."""
        changes = await self.store.changes(self.at.revision, _WAIT_MILLISECONDS)
        for kept in changes.records:
            if listeners := self._listeners.get(kept.record.id):
                self.recent[kept.record.id] = kept
                for listener in listeners:
                    listener.note(kept.record.id, kept.revision)
        self.at = Position(self.at.epoch, changes.revision)

    def listen(self) -> Listener:
        """A new listener, which must be closed."""
        listener = Listener(self)
        self._all.add(listener)
        if self._is_stopped:
            listener.end()
        return listener

    def stop(self) -> None:
        """Say goodbye to all listeners, who may come again."""
        self._is_stopped = True
        self._dismiss()

    def enter(self, request_id: str, listener: Listener) -> None:
        """From now on it is told of the request."""
        self._listeners.setdefault(request_id, set()).add(listener)

    def leave(self, request_ids: Iterable[str], listener: Listener) -> None:
        """From now on it is not."""
        for name in request_ids:
            those = self._listeners.get(name, set())
            those.discard(listener)
            if not those:
                self._listeners.pop(name, None)
                self.recent.pop(name, None)

    def forget(self, listener: Listener) -> None:
        """It has gone."""
        self._all.discard(listener)

    async def _follow(self) -> None:
        now = await self.store.position()
        if (
            now.epoch != self.at.epoch or now.revision < self.at.revision
        ):  # another store: its numbers mean other things
            self.at = now
            self.recent.clear()
            self._dismiss()
        while True:
            await self.step()

    def _dismiss(self) -> None:
        for listener in self._all:
            listener.end()


class Listener:
    """One connection that waits for requests."""

    def __init__(self, pushes: Pushes) -> None:
        self._pushes = pushes
        self._heard: dict[str, int] = {}
        """The requests that it waits for, with the last revision that it knows of each."""
        self._due: list[tuple[int, str]] = []
        """What is to be told, a heap. A request is changed twice in its life, so it is not long."""
        self._said: deque[JsonObject] = deque()
        self._something, self._nothing_said = asyncio.Event(), asyncio.Event()
        self._nothing_said.set()
        self.has_ended = False
        """Nothing more will come on this connection, though there may be more to tell."""

    @property
    def waits(self) -> bool:
        """Whether there is anything to wait for."""
        return bool(self._heard or self._said)

    async def add(self, wanted: Mapping[str, str | None]) -> list[str]:
        """Wait for these too, each from the change on whose token is given; returns those that do not exist. Raises `ApiError`."""
        check_count(len({*self._heard, *wanted}))
        heard_of = {name: heard(token, self._pushes.at.epoch) for name, token in wanted.items()}
        for name, revision in heard_of.items():
            self._heard[name] = revision
            self._pushes.enter(name, self)
        up_to = self._pushes.at.revision  # what comes later is noted by the reader
        found = await together(self._pushes.known.look(name) for name in wanted)
        unknown = [name for name, one in zip(wanted, found, strict=True) if one is None]
        self.drop(unknown)
        for name, one in zip(wanted, found, strict=True):
            if isinstance(one, InQueue) and wanted[name] is None:
                self.say(waiting(await self._pushes.known.shown(one)))
            elif isinstance(one, Kept) and one.revision <= up_to:
                self._settle(name, one)
        return unknown

    def drop(self, request_ids: Iterable[str]) -> None:
        """Wait for these no more."""
        gone = [name for name in request_ids if self._heard.pop(name, None) is not None]
        self._pushes.leave(gone, self)

    def note(self, request_id: str, revision: int) -> None:
        """A request has changed."""
        if revision > self._heard.get(request_id, revision):
            heappush(self._due, (revision, request_id))
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
        self._something.clear()
        return None

    def end(self) -> None:
        """Nothing more comes."""
        self.has_ended = True
        self._something.set()
        self._nothing_said.set()

    def close(self) -> None:
        """Nobody listens any more."""
        self.drop([*self._heard])
        self._pushes.forget(self)

    def _settle(self, name: str, found: Kept) -> None:
        """Note what was there at the beginning; an end that was heard of before is not waited for."""
        if found.revision > self._heard.get(name, found.revision):
            self.note(name, found.revision)
        elif has_ended(found.record):
            self.drop([name])

    async def _event(self, name: str, revision: int) -> JsonObject | None:
        """The event of a change; None when another has followed, which is told in its turn."""
        kept = self._pushes.recent.get(name)
        if kept is None or kept.revision != revision:
            kept = await self._pushes.store.record(name)
        if kept is None or kept.revision != revision:
            return None
        token = token_of(self._pushes.at.epoch, revision)
        self._heard[name] = revision
        try:
            told = changed(token, await self._pushes.known.shown(kept))
        except ApiError as error:
            told = refused(error, name, token)
        if has_ended(kept.record):
            self.drop([name])
        return told
