"""The work queue: each key at most once in line, never worked on twice at once, and with a backoff of its own.

The semantics are those of client-go's workqueue, which a hundred controllers have tried out; but flows of keys take turns.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from headrace.shells.kube.line import FairLine, Urgency

K = TypeVar("K", bound=Hashable)

FIRST_BACKOFF_SECONDS = 0.05
LAST_BACKOFF_SECONDS = 300.0


class WorkQueue(Generic[K]):
    """Keys that want to be looked at."""

    def __init__(self, flow_of: Callable[[K], Hashable] = lambda _: None, at_most: int = sys.maxsize) -> None:
        """Keys of one flow take turns with those of others, and at most so many are worked on at once; by default there is one flow."""
        self._line = FairLine(flow_of, at_most)
        self._dirty: dict[K, Urgency] = {}
        self._busy: set[K] = set()
        self._failures: Counter[K] = Counter()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._held: set[K] = set()
        self._since: dict[K, float] = {}
        self._taken_at = 0.0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, key: K, urgency: Urgency = Urgency.SOON) -> None:
        """Look at the key; asking twice before that is asking once, and the more urgent word counts."""
        if key in self._held:
            return
        if key in self._dirty:
            self._hurry(key, urgency)
            return
        self._dirty[key] = urgency
        self._since[key] = asyncio.get_running_loop().time()
        self._idle.clear()
        if key not in self._busy:
            self._line.append(key, urgency)
            self._wake.set()

    def add_after(self, key: K, seconds: float, urgency: Urgency = Urgency.SOON) -> None:
        """Look at the key at the latest in so many seconds; an earlier date that was set before stays."""
        known = self._timers.get(key)
        later = known is None or known.when() > asyncio.get_running_loop().time() + seconds
        if later and key not in self._held:
            self._set_timer(key, seconds, urgency)

    async def get(self) -> K:
        """The next key, once there is one that may be worked on. `done` must follow."""
        while self._line.next_hands is None:
            self._wake.clear()
            await self._wake.wait()
        key = self._line.popleft()
        self._dirty.pop(key, None)
        self._since.pop(key, None)
        self._busy.add(key)
        self._taken_at = asyncio.get_running_loop().time()
        return key

    def done(self, key: K) -> None:
        """The work on the key went well."""
        self._failures.pop(key, None)
        self._release(key)

    def failed(self, key: K, backoff: float | None = None, retry_after: float | None = None) -> float:
        """The work on the key went wrong: it comes again after a while, which is returned in seconds.

        Our own backoff, exponential unless it is given, ends early when something happens to the key. What the server has asked for
        does not: nothing brings the key back before `retry_after` seconds are over.
        """
        self._failures[key] += 1
        exponential = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(self._failures[key] - 1, 30), LAST_BACKOFF_SECONDS)
        wait = next(seconds for seconds in (retry_after, backoff, exponential) if seconds is not None)
        wait *= random.uniform(1.0, 1.25)  # those who failed together should not come back together
        if retry_after is not None:
            self._held.add(key)
            self._dirty.pop(key, None)
            self._since.pop(key, None)
            self._set_timer(key, wait)
        self._release(key)
        self.add_after(key, wait)
        return wait

    def forget(self, key: K) -> None:
        """The key is gone: drop what was planned for it."""
        self._failures.pop(key, None)
        self._held.discard(key)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    @property
    def depth(self) -> int:
        """Keys that wait for a worker."""
        return len(self._line)

    @property
    def oldest_seconds(self) -> float:
        """How long the key that has waited longest has waited."""
        if not self._since:
            return 0.0
        return asyncio.get_running_loop().time() - min(self._since.values())

    @property
    def stalled_seconds(self) -> float:
        """For how long no worker has taken a key although there was one."""
        if not self._line:
            return 0.0
        waits_since = min(self._since[key] for key in self._line)
        return asyncio.get_running_loop().time() - max(self._taken_at, waits_since)

    async def idle(self) -> None:
        """Wait until no key is in line or worked on."""
        await self._idle.wait()

    def _hurry(self, key: K, urgency: Urgency) -> None:
        if urgency < self._dirty[key]:
            self._dirty[key] = urgency
            if key not in self._busy:
                self._line.hurry(key, urgency)

    def _set_timer(self, key: K, seconds: float, urgency: Urgency = Urgency.SOON) -> None:
        known = self._timers.pop(key, None)
        if known is not None:
            known.cancel()
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self._due, key, urgency)

    def _due(self, key: K, urgency: Urgency) -> None:
        self._timers.pop(key, None)
        self._held.discard(key)
        self.add(key, urgency)

    def _release(self, key: K) -> None:
        self._busy.discard(key)
        self._line.release(key)
        if key in self._dirty:
            self._line.append(key, self._dirty[key])
        if self._line:
            self._wake.set()
        elif not self._busy:
            self._idle.set()
