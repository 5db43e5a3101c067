"""When requests that have gathered become a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from headrace.api.asking import RequestWindow
from headrace.api.manifest import MAX_INLINE_BYTES


class Gathered(NamedTuple):
    """A request that waits for others."""

    since: int
    """Milliseconds since the epoch."""
    tokens: int
    bytes: int
    """Of its record, which must go into the batch itself together with the others."""


def fitting(gathered: Sequence[Gathered], window: RequestWindow) -> int:
    """How many of them, from the first, go into one batch: at least one, where there are any."""
    tokens = size = 0
    for count, one in enumerate(gathered[: window.max_batch_size]):
        tokens, size = tokens + one.tokens, size + one.bytes
        if count and (tokens > window.max_batch_tokens or size > MAX_INLINE_BYTES):
            return count
    return min(len(gathered), window.max_batch_size)


def closes_at(gathered: Sequence[Gathered], window: RequestWindow) -> int | None:
    """When the first has waited long enough; None when nobody waits."""
    return min((one.since for one in gathered), default=0) + window.max_wait_milliseconds if gathered else None


def closing(gathered: Sequence[Gathered], window: RequestWindow, now: int) -> int:
    """How many of them become a batch now: 0 while it is worth waiting for more."""
    count, end = fitting(gathered, window), closes_at(gathered, window)
    tokens = sum(one.tokens for one in gathered[:count])
    is_full = count == window.max_batch_size or count < len(gathered) or tokens >= window.max_batch_tokens
    return count if end is not None and (is_full or now >= end) else 0
