"""When the time of each record is over. Pure: the caller says what time it is.

A record's time begins when the engine is first given it, and goes on through further tries and the waits between them. While the engine
could work on nothing at all, and no record is to blame for that, it stands still.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush

from headrace.api.records import ErrorCode, RecordError
from headrace_worker.engines.base import Outcome, Work


class Deadlines:
    """Of the records that are in hand."""

    def __init__(self, seconds: int | None) -> None:
        """`seconds` that each record has; None: as many as it takes."""
        self._seconds = seconds
        self._held = 0.0
        """Seconds that did not count."""
        self._ends: dict[int, float] = {}
        """By position; as if every second had counted."""
        self._order: list[tuple[float, int]] = []
        """Those that the engine has been given, soonest first, and some that are finished."""

    def begin(self, batch: Iterable[Work], now: float) -> None:
        """The engine is given records, some of them maybe once more."""
        if self._seconds is None:
            return
        for work in batch:
            end = self._ends.setdefault(work.position, now - self._held + self._seconds)
            heappush(self._order, (end, work.position))

    def hold(self, seconds: float) -> None:
        """So long nothing could be worked on."""
        self._held += seconds

    def end(self, position: int) -> float | None:
        """When a record's time is over, as far as that is known; None when it has no end."""
        end = self._ends.get(position)
        return None if end is None else end + self._held

    def finish(self, outcomes: Iterable[Outcome]) -> None:
        """Records that are not tried again."""
        if self._seconds is not None:
            for outcome in outcomes:
                self._ends.pop(outcome.work.position, None)

    def overdue(self, now: float) -> list[int]:
        """Positions of the records whose time is over; each is said once, until the engine is given it again."""
        over: dict[int, None] = {}
        while self._order and self._order[0][0] <= now - self._held:
            end, position = heappop(self._order)
            if self._ends.get(position) == end:
                over[position] = None
        return list(over)

    def outcomes(self, given_up: Sequence[Work]) -> list[Outcome]:
        """What becomes of records whose time was over."""
        message = f"there was no answer within {self._seconds} s (recordDeadlineSeconds)"
        return [Outcome(work, error=RecordError(ErrorCode.DEADLINE_EXCEEDED, message)) for work in given_up]
