"""When a refused caller should come again: once a tenth of the queue has gone, so that those who come back together find room."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import NamedTuple

LOOKED_BACK_MILLISECONDS = 60_000
MOST_SECONDS = 300
UNKNOWN_SECONDS = 10
"""When nothing has left the queue for a minute."""


class Left(NamedTuple):
    """Requests that have left the queue together."""

    at: int
    """Milliseconds since the epoch."""
    requests: int


def recent(left: Iterable[Left], now: int) -> list[Left]:
    """Those of the last minute."""
    return [one for one in left if now - one.at < LOOKED_BACK_MILLISECONDS]


def retry_after(max_queued: int, left: Iterable[Left], now: int) -> int:
    """Seconds from 1 to 300."""
    known = recent(left, now)
    gone = sum(one.requests for one in known)
    if not gone:
        return UNKNOWN_SECONDS
    past = max(1000, now - min(one.at for one in known))
    return min(MOST_SECONDS, max(1, ceil(max_queued / 10 * past / gone / 1000)))
