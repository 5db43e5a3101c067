"""Telling those who wait what has become of requests: one reader follows all records, and wakes the listeners to each.

A listener begins with what is known now and goes on with what is written from then on, in order and with nothing between the two left
out: the reader has come to some revision when a listener begins, all up to that is looked up, and all after it will come by.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Never

from cachetools import LRUCache

from headrace.api.asking import RequestRecord
from headrace.api.tenancy import TenantLimits
from headrace.api.worker import Partial
from headrace.core.asking.life import has_ended
from headrace.core.tenancy.bounds import check_streams
from headrace.gateway.clocks import Clock
from headrace.gateway.endless import forever, keep_on
from headrace.gateway.queues.store import Kept, Position, Stores
from headrace.gateway.telling.finished import FinishedRequests
from headrace.gateway.telling.listening import Listener, Whose
from headrace.gateway.tenants.rooms import Room
from headrace.gateway.watch import UNWATCHED, Watch

_WAIT_MILLISECONDS = 2000
_RECENT_BYTES = 16 * 2**20
_PARTIAL_BYTES = 16 * 2**20


class Pushes:
    """The reader, and all listeners."""

    def __init__(self, stores: Stores, clock: Clock, watch: Watch = UNWATCHED) -> None:
        self._stores, self._clock, self.watch = stores, clock, watch
        self.at = Position("", 0)
        """All up to here was told to the listeners."""
        self.recent: LRUCache[Whose, Kept] = LRUCache(_RECENT_BYTES, getsizeof=lambda kept: kept.size + 1)
        """Records that somebody waits for, as they were written: not all who wait need read them again."""
        self.partials: LRUCache[Whose, Partial] = LRUCache(
            _PARTIAL_BYTES, getsizeof=lambda partial: len(partial.text) + 1
        )
        """How far answers have come that somebody waits for, each once, however many wait."""
        self.finished = FinishedRequests()
        self._listeners: dict[Whose, set[Listener]] = {}
        self._all: set[Listener] = set()
        self._of_tenants: Counter[str] = Counter()
        """How many of them each has, by its namespace."""
        self._is_stopped = False

    async def begin(self) -> None:
        """Find out where the store is. Raises `StoreAway`."""
        self.at = await self._stores.position()

    async def run(self) -> Never:
        """Read on until cancelled."""
        await keep_on("pushes", self._follow, self._clock)

    async def step(self) -> None:
        """Wait for changes, and tell them. Raises `StoreAway`."""
        changes = await self._stores.changes(self.at.revision, _WAIT_MILLISECONDS)
        for change in changes.records:
            kept = change.kept
            whose = Whose(change.namespace, kept.record.id)
            if has_ended(kept.record):
                self.finished.note(change.namespace, kept.record)
            if listeners := self._listeners.get(whose):
                self.recent[whose] = kept
                for listener in listeners:
                    listener.note(kept.record.id, kept.revision)
        self.at = Position(self.at.epoch, changes.revision)

    def grown(self, namespace: str, partial: Partial) -> None:
        """An answer has grown. It is told to those who listen now, if they have the time."""
        whose = Whose(namespace, partial.custom_id)
        if listeners := self._listeners.get(whose):
            self.partials[whose] = partial
            for listener in listeners:
                listener.note_growth(whose.id)

    def listen(self, room: Room, limits: TenantLimits | None = None) -> Listener:
        """A new listener to the requests of a tenant, which must be closed. Raises `ApiError` when it may have no more."""
        check_streams(self._of_tenants[room.namespace], limits)
        listener = Listener(self, room)
        self._all.add(listener)
        self._of_tenants[room.namespace] += 1
        if self._is_stopped:
            listener.end()
        return listener

    def stop(self) -> None:
        """Say goodbye to all listeners, who may come again."""
        self._is_stopped = True
        self._dismiss()

    def enter(self, whose: Whose, listener: Listener) -> None:
        """From now on it is told of the request."""
        self._listeners.setdefault(whose, set()).add(listener)

    def leave(self, those: Iterable[Whose], listener: Listener) -> None:
        """From now on it is not."""
        for whose in those:
            listeners = self._listeners.get(whose, set())
            listeners.discard(listener)
            if not listeners:
                self._listeners.pop(whose, None)
                self.recent.pop(whose, None)
                self.partials.pop(whose, None)

    def forget(self, listener: Listener) -> None:
        """It has gone."""
        if listener in self._all:
            self._all.discard(listener)
            self._of_tenants[listener.namespace] -= 1
            if not self._of_tenants[listener.namespace]:
                del self._of_tenants[listener.namespace]

    def now(self) -> int:
        """What the clock says."""
        return self._clock.now()

    def told(self, record: RequestRecord, since: int) -> None:
        """Tell the watch how long it took."""
        self.watch.pushed(max(0, self.now() - max(record.ended or 0, since)))

    async def _follow(self) -> Never:
        now = await self._stores.position()
        if now.epoch != self.at.epoch or now.revision < self.at.revision:
            # Another store: its numbers mean other things.
            self.at = now
            self.recent.clear()
            self._dismiss()
        await forever(self.step)

    def _dismiss(self) -> None:
        for listener in self._all:
            listener.end()
