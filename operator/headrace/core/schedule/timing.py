"""When a schedule is really due: its tick, moved by its own share of the jitter, and within the hours in which it may run."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo


def offset(namespace: str, name: str, jitter_seconds: int) -> timedelta:
    """By how much every tick of a schedule is late on purpose: less than the jitter, and the same for ever.

    It follows from the name alone, so no restart and no other replica moves it, and a hundred schedules of one minute are spread evenly.
    """
    if jitter_seconds == 0:
        return timedelta(0)
    digest = hashlib.sha256(f"{namespace}/{name}".encode()).digest()
    return timedelta(seconds=int.from_bytes(digest[:8]) % jitter_seconds)


@dataclass(frozen=True, slots=True)
class Hours:
    """A part of some days of the week in which work may run; one that ends at or before its begin ends on the next day."""

    days: frozenset[int]
    """Of the beginning: 0 is Monday."""
    begin: time
    end: time
    zone: ZoneInfo

    def covers(self, moment: datetime) -> bool:
        """Whether work may run then."""
        return any(start <= moment < end for start, end in self._spans(moment, range(-1, 1)))

    def next_change(self, moment: datetime) -> datetime:
        """When it is next opened or closed, after that moment."""
        return min(edge for span in self._spans(moment, range(-1, 9)) for edge in span if edge > moment)

    def last_end(self, moment: datetime) -> datetime:
        """When it last ended, at that moment or before it."""
        return max(end for _, end in self._spans(moment, range(-9, 1)) if end <= moment)

    def _spans(self, moment: datetime, around: range) -> Iterator[tuple[datetime, datetime]]:
        """Those that begin on days so many days after a moment, in UTC; within a week each kind of day is among them."""
        today = moment.astimezone(self.zone).date()
        for days in around:
            day = today + timedelta(days=days)
            if day.weekday() not in self.days:
                continue
            last = day if self.end > self.begin else day + timedelta(days=1)
            yield (
                datetime.combine(day, self.begin, tzinfo=self.zone).astimezone(UTC),
                datetime.combine(last, self.end, tzinfo=self.zone).astimezone(UTC),
            )


def is_open(hours: Iterable[Hours], moment: datetime) -> bool:
    """Whether work may run then; where no hours are said it always may."""
    listed = tuple(hours)
    return not listed or any(one.covers(moment) for one in listed)


def opening(hours: Iterable[Hours], moment: datetime) -> datetime:
    """The moment itself when work may run then, or else when it may next."""
    listed = tuple(hours)
    while not is_open(listed, moment):
        moment = min(one.next_change(moment) for one in listed)
    return moment


def closed_since(hours: Iterable[Hours], moment: datetime) -> datetime:
    """The moment itself when work may run then, or else since when it may not."""
    listed = tuple(hours)
    return moment if is_open(listed, moment) else max(one.last_end(moment) for one in listed)


def storms(instants: Iterable[datetime]) -> dict[int, int]:
    """For each minute of the hour, the most instants that any one such minute has: a storm is seen before it comes."""
    found = dict.fromkeys(range(60), 0)
    for minute, count in Counter(instant.replace(second=0, microsecond=0) for instant in instants).items():
        found[minute.minute] = max(found[minute.minute], count)
    return found
