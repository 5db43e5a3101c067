"""Cron expressions, with the meaning that the CronJob controller of Kubernetes gives them.

An instant fires when the clock on the wall of the time zone shows what the expression says. So an hour that a change to summer time
leaves out fires nothing, and one that comes twice in autumn fires twice: that is what the controller does, and what is told of the
next runs must be what happens. `H` stands for a value that follows from the schedule's own name, so that a hundred schedules of
`H * * * *` are spread over the hour.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import product
from zoneinfo import ZoneInfo

from croniter import CroniterError, croniter

MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")
_ALL = (range(60), range(24), range(1, 32), range(1, 13), range(7))
_WORD = re.compile(r"^[0-9A-Za-z*/,()-]+$")
_LEAP_YEARS_APART = 8
"""The longest time between two 29ths of February, in years."""


class BadCron(ValueError):
    """The expression means nothing, or never fires; the message says why."""


@dataclass(frozen=True, slots=True)
class Cron:
    """An expression that was understood: for each field its values, in the order of an expression; None is a star."""

    fields: tuple[tuple[int, ...] | None, ...]

    @property
    def text(self) -> str:
        """As plain cron, which the CronJob controller understands: without `H`, names and macros."""
        return " ".join("*" if values is None else ",".join(map(str, values)) for values in self.fields)

    def after(self, moment: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        """The instants that fire after a moment, in UTC, from the first on, without end."""
        day = moment.astimezone(zone).date()
        while True:
            if self._is_on(day):
                yield from (instant for instant in self._of_day(day, zone) if instant > moment)
            day += timedelta(days=1)

    def before(self, moment: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        """The instants that fire before a moment, in UTC, from the last one back, as far as the calendar goes."""
        day = moment.astimezone(zone).date()
        while day > date.min + timedelta(days=2):
            if self._is_on(day):
                yield from (instant for instant in reversed(self._of_day(day, zone)) if instant < moment)
            day -= timedelta(days=1)

    def _values(self, field: int) -> tuple[int, ...]:
        return self.fields[field] or tuple(_ALL[field])

    def _is_on(self, day: date) -> bool:
        """Where both kinds of day are said, one of them is enough: that is how cron has always been."""
        _, _, days, _, weekdays = self.fields
        of_month, of_week = day.day in self._values(2), day.isoweekday() % 7 in self._values(4)
        on = of_month and of_week if days is None or weekdays is None else of_month or of_week
        return on and day.month in self._values(3)

    def _of_day(self, day: date, zone: ZoneInfo) -> list[datetime]:
        found = set()
        for hour, minute, fold in product(self._values(1), self._values(0), _folds(day, zone)):
            shown = datetime(day.year, day.month, day.day, hour, minute, fold=fold, tzinfo=zone)
            instant = shown.astimezone(UTC)
            if instant.astimezone(zone).replace(tzinfo=None) == shown.replace(tzinfo=None, fold=0):
                found.add(instant)
        return sorted(found)


def _folds(day: date, zone: ZoneInfo) -> tuple[int, ...]:
    """Only on a day on which the clock is changed may an hour come twice."""
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=zone)
    offsets = {(noon + timedelta(hours=hours)).utcoffset() for hours in (-13, 0, 13)}
    return (0, 1) if len(offsets) > 1 else (0,)


def parse(expression: str, seed: str) -> Cron:
    """Understand five fields or a macro; `seed` is what `H` is made of. Raises `BadCron`."""
    text = MACROS.get(expression.strip(), expression)
    words = text.split()
    if text.startswith("@"):
        raise BadCron(f"{text} is not known: use five fields, or one of {', '.join(MACROS)}")
    if len(words) != len(_FIELDS):
        raise BadCron(f"must have five fields, {', '.join(_FIELDS)}; it has {len(words)}")
    cron = Cron(tuple(_values(field, word, seed) for field, word in enumerate(words)))
    if not _fires(cron):
        raise BadCron(f"never fires: no month that it names has a day {', '.join(map(str, cron.fields[2] or ()))}")
    return cron


def _values(field: int, word: str, seed: str) -> tuple[int, ...] | None:
    """What one field says. The library expands whole expressions, so the others are stars."""
    words = ["*"] * len(_FIELDS)
    words[field] = word
    problem = f"the {_FIELDS[field]} is {word!r}: "
    if not _WORD.match(word):
        raise BadCron(f"{problem}use numbers, names, H, and the signs * / , -")
    try:
        expanded, nth = croniter.expand(" ".join(words), hash_id=seed.encode())
    except CroniterError as error:
        raise BadCron(f"{problem}{error}") from error
    values = expanded[field]
    if values == ["*"]:
        return None
    if nth or not all(isinstance(value, int) for value in values):
        raise BadCron(f"{problem}Kubernetes knows no L and no #")
    return tuple(sorted(set(values)))


def _fires(cron: Cron) -> bool:
    """Whether there is any day on which it fires: the 30th of February never comes."""
    first = date(2024, 1, 1)
    days = (first + timedelta(days=number) for number in range(366 * _LEAP_YEARS_APART))
    return any(map(cron._is_on, days))
