"""Which waiting records go to the engine next. Pure: no clock, no I/O; the caller says what time it is.

A batch is cut as soon as one of three limits is reached: records, tokens, or the time that its oldest record has waited. Records
with the same key (their length, or the beginning of their prompt) wait in one bucket, and the keys are kept sorted, so that batch
mates are neighbours in that order. A record costs a few microseconds, however many are waiting.

Nobody starves: ordinarily a batch is built around the last key (the longest first, so that short ones fill the end of a shard), but
every eighth is built around the record that has waited longest. So the oldest record is in one of the next `FAIRNESS_INTERVAL`
batches, and a record with n older ones in one of the next `FAIRNESS_INTERVAL · (n + 1)`.
"""

from __future__ import annotations

import sys
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from headrace.api.common import Batching, OrderBy
from headrace_worker.engines.base import Work
from headrace_worker.sortedkeys import SortedKeys

FAIRNESS_INTERVAL = 8
"""One batch in so many is built around the record that has waited longest."""
PREFIX_BYTES = 1024
"""So much of a prompt is looked at to put records with the same beginning together."""

Key: TypeAlias = int | bytes
"""All keys of one batcher are of one type."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """When a batch is cut."""

    max_batch_size: int
    """Records; the engine may have room for fewer."""
    max_batch_tokens: int
    """Sum of the prompts' tokens; a record longer than this is a batch of its own."""
    max_wait_seconds: float
    order_by: OrderBy = OrderBy.NONE

    @classmethod
    def of(cls, batching: Batching) -> BatchLimits:
        """The limits of a spec."""
        return cls(
            max_batch_size=batching.max_batch_size or sys.maxsize,
            max_batch_tokens=batching.tokens,
            max_wait_seconds=batching.max_wait_milliseconds / 1000,
            order_by=batching.order_by,
        )


class Batcher:
    """Records that wait, and the rule by which they are put together."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._key = _KEYS[limits.order_by]
        self._keys: SortedKeys[Any] = SortedKeys()
        self._buckets: dict[Key, deque[tuple[int, Work]]] = {}
        self._added: OrderedDict[int, tuple[Key, float]] = OrderedDict()
        """By ticket, oldest first. Within a bucket tickets ascend, so that records always leave a bucket at its front."""
        self._tokens = 0
        self._tickets = 0
        self._batches = 0

    def __len__(self) -> int:
        return len(self._added)

    def add(self, work: Work, now: float) -> None:
        """Let a record wait from now on (`now` in seconds of any clock that does not go back)."""
        key = self._key(work)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = deque()
            self._keys.add(key)
        bucket.append((self._tickets, work))
        self._added[self._tickets] = (key, now)
        self._tickets += 1
        self._tokens += work.tokens

    def next_deadline(self) -> float | None:
        """When a batch is cut even if it is not full; None when nothing waits."""
        if not self._added:
            return None
        _, added = next(iter(self._added.values()))
        return added + self._limits.max_wait_seconds

    def next_batch(self, now: float, room: int, *, more_coming: bool) -> list[Work]:
        """At most `room` records that go to the engine now; nothing while it is better to wait.

        A batch that is not full waits only while `more_coming`, and only until `next_deadline`.
        """
        size = min(room, self._limits.max_batch_size)
        deadline = self.next_deadline()
        if size <= 0 or deadline is None:
            return []
        full = len(self) >= size or self._tokens >= self._limits.max_batch_tokens
        if more_coming and not full and now < deadline:
            return []
        self._batches += 1
        return self._take(size)

    def _take(self, size: int) -> list[Work]:
        """Take records key by key: from the anchor downwards, then from the anchor upwards."""
        batch: list[Work] = []
        emptied: list[Key] = []
        tokens = self._limits.max_batch_tokens
        for key in self._keys.around(self._anchor()):
            bucket = self._buckets[key]
            while bucket and len(batch) < size and (bucket[0][1].tokens <= tokens or not batch):
                ticket, work = bucket.popleft()
                del self._added[ticket]
                tokens -= work.tokens
                batch.append(work)
            if bucket:
                break
            emptied.append(key)
        self._tokens -= sum(work.tokens for work in batch)
        for key in emptied:
            del self._buckets[key]
            self._keys.remove(key)
        return batch

    def _anchor(self) -> Key:
        """The key around which the next batch is built."""
        if self._batches % FAIRNESS_INTERVAL:
            last: Key = self._keys.last()
            return last
        oldest, _ = next(iter(self._added.values()))
        return oldest


def _by_arrival(_: Work) -> Key:
    return 0


def _by_length(work: Work) -> Key:
    """What a record holds its place for: the answer that may come, where one is generated; else its prompt."""
    return work.expected_tokens or work.tokens


def _by_prefix(work: Work) -> Key:
    body = work.request.body
    return orjson.dumps(body.get("messages") or body.get("prompt") or body.get("input"))[:PREFIX_BYTES]


_KEYS: dict[OrderBy, Callable[[Work], Key]] = {
    OrderBy.NONE: _by_arrival,
    OrderBy.LENGTH: _by_length,
    OrderBy.PREFIX: _by_prefix,
}
