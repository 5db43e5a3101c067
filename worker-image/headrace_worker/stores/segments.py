"""Logs where nothing can be appended: a row of immutable objects.

`URI` is the beginning of a log, `URI.000001` and so on are its segments, one a sync. Only one process appends to a log, so that a
segment which is there already is its own, written by a request whose answer was lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable

SEGMENT_BYTES = 8 * 1024 * 1024
"""A log does not keep more than this in memory before it writes a segment."""
_SHORTEST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 10.0
_SEGMENTS_A_SECOND_LONGER = 50
"""After so many segments the pause between two of them is a second longer."""
_NUMBER = re.compile(r"\.(\d{6,})")


def segment_name(log: str, number: int) -> str:
    """The name of a segment of a log, from 1."""
    return f"{log}.{number:06}"


def segment_number(log: str, name: str) -> int | None:
    """The number of a segment; 0 for the beginning of the log, None for what is no part of it."""
    if name == log:
        return 0
    found = _NUMBER.fullmatch(name.removeprefix(log)) if name.startswith(log) else None
    return int(found[1]) if found else None


class SegmentedLog:
    """The end of a log. `put` writes the segment of a number; `segments` are there already.

    The longer a log, the rarer its syncs: at first twice a second, after an hour every ten seconds. A lost process costs little of
    what it has done, and a log of a day has thousands of segments, not tens of thousands.
    """

    def __init__(self, put: Callable[[int, bytes], None], segments: int) -> None:
        self._put, self._segments = put, segments
        self._buffer = bytearray()

    @property
    def sync_pause(self) -> float:
        """Each sync is a request that is paid for, and keeps the engine waiting."""
        pause = _SHORTEST_PAUSE_SECONDS + self._segments / _SEGMENTS_A_SECOND_LONGER
        return min(pause, _LONGEST_PAUSE_SECONDS)

    def append(self, data: bytes) -> None:
        """Add bytes at the end; they are in memory only until the next sync."""
        self._buffer += data
        if len(self._buffer) >= SEGMENT_BYTES:
            self.sync()

    def sync(self) -> None:
        """Write what is new as one segment. What could not be written is given up: its process must end."""
        if not self._buffer:
            return
        segment, self._buffer = bytes(self._buffer), bytearray()
        self._put(self._segments + 1, segment)
        self._segments += 1

    def close(self) -> None:
        """Sync."""
        self.sync()
