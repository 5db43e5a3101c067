"""Records that failed and will be tried again. Pure: the caller says what time it is, and nothing is drawn at random.

The delay is exponential with full jitter: any part of the whole range below the cap. Which part is a hash of the batch, the record
and the try, so that a run can be repeated, and yet a thousand records that fail together do not come back together.
"""

from __future__ import annotations

import hashlib
from heapq import heappop, heappush

from headrace.api.common import Backoff, Retries
from headrace_worker.engines.base import Work


def delay_seconds(backoff: Backoff, seed: str, position: int, failures: int) -> float:
    """How long a record waits after its `failures`-th failure (from 1)."""
    growth: int = backoff.factor ** (failures - 1)
    ceiling = min(backoff.base_seconds * growth, backoff.cap_seconds)
    digest = hashlib.blake2b(f"{seed}/{position}/{failures}".encode(), digest_size=8).digest()
    return ceiling * int.from_bytes(digest) / 2**64


class RetryQueue:
    """Parked records, soonest first."""

    def __init__(self, retries: Retries, seed: str) -> None:
        self._retries = retries
        self._seed = seed
        self._parked: list[tuple[float, int, Work]] = []
        self._failures: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._parked)

    def has_failed(self, position: int) -> bool:
        """Whether a record is parked, or is being tried again."""
        return position in self._failures

    def park(self, work: Work, now: float, end: float | None = None) -> bool:
        """Keep a record that has just failed for another try, but no longer than to `end`; False when it has had them all."""
        failures = self._failures.pop(work.position, 0) + 1
        if failures > self._retries.limit:
            return False
        self._failures[work.position] = failures
        due = now + delay_seconds(self._retries.backoff, self._seed, work.position, failures)
        heappush(
            self._parked,
            (due if end is None else min(due, end), work.position, work._replace(attempt=work.attempt + 1)),
        )
        return True

    def next_due(self) -> float | None:
        """When the next record is to be tried again; None when none is parked."""
        return self._parked[0][0] if self._parked else None

    def due(self, now: float) -> list[Work]:
        """The records whose time has come, no longer parked; each with its next attempt."""
        ready: list[Work] = []
        while self._parked and self._parked[0][0] <= now:
            ready.append(heappop(self._parked)[2])
        return ready
