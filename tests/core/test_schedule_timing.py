"""Jitter that never moves, and hours of the day over both changes of the clock."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.schedule.timing import Hours, closed_since, is_open, offset, opening, storms

BERLIN = ZoneInfo("Europe/Berlin")
NIGHTS = Hours(frozenset(range(5)), time(22), time(6), BERLIN)
"""From the evening of each weekday to the morning after."""


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+00:00")


def test_offset_is_the_same_for_ever() -> None:
    assert offset("default", "hourly", 600) == timedelta(seconds=269)
    assert offset("default", "hourly", 0) == timedelta(0)
    assert offset("other", "hourly", 600) != offset("default", "hourly", 600)


def test_offset_spreads_a_hundred_schedules_of_one_minute() -> None:
    noon = at("2026-01-15T12:00")
    starts = [noon + offset("default", f"report-{number}", 600) for number in range(100)]
    assert all(noon <= start < noon + timedelta(seconds=600) for start in starts)
    assert max(Counter(start.minute for start in starts).values()) <= 20
    next_hour = [start + timedelta(hours=1) for start in starts]
    assert sum(storms([*starts, *next_hour]).values()) == 100


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        pytest.param("2026-01-12T20:59", False, id="Monday, a minute to ten in the evening"),
        pytest.param("2026-01-12T21:00", True, id="Monday at ten"),
        pytest.param("2026-01-13T04:59", True, id="Tuesday, a minute to six in the morning"),
        pytest.param("2026-01-13T05:00", False, id="Tuesday at six"),
        pytest.param("2026-01-17T02:00", True, id="the night that began on Friday"),
        pytest.param("2026-01-17T23:00", False, id="Saturday night"),
        pytest.param("2026-10-24T04:30", False, id="Saturday morning at half past six, still in summer time"),
        pytest.param("2026-10-24T03:30", True, id="Saturday morning at half past five, still in summer time"),
    ],
)
def test_is_open_by_the_clock_on_the_wall(moment: str, expected: bool) -> None:
    assert is_open([NIGHTS], at(moment)) is expected


def test_is_open_always_where_no_hours_are_said() -> None:
    assert is_open([], at("2026-01-12T12:00"))
    assert opening([], at("2026-01-12T12:00")) == at("2026-01-12T12:00")


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        pytest.param("2026-01-12T12:00", "2026-01-12T21:00", id="this evening"),
        pytest.param("2026-01-12T22:00", "2026-01-12T22:00", id="at once"),
        pytest.param("2026-01-17T12:00", "2026-01-19T21:00", id="not before Monday"),
        pytest.param("2026-03-28T12:00", "2026-03-30T20:00", id="Monday, in summer time by then"),
    ],
)
def test_opening_is_the_first_moment_in_which_work_may_run(moment: str, expected: str) -> None:
    assert opening([NIGHTS], at(moment)) == at(expected)


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        pytest.param(
            "2026-01-12T12:00", "2026-01-10T05:00", id="Monday at noon: the night that began on Friday was the last"
        ),
        pytest.param("2026-01-13T05:00", "2026-01-13T05:00", id="the moment in which it ends"),
        pytest.param("2026-01-13T04:59", "2026-01-13T04:59", id="open"),
        pytest.param("2026-03-30T12:00", "2026-03-28T05:00", id="the clock was set in between"),
    ],
)
def test_closed_since_is_when_the_last_window_ended(moment: str, expected: str) -> None:
    assert closed_since([NIGHTS], at(moment)) == at(expected)


@settings(deadline=None)
@given(
    begin=st.times(),
    end=st.times(),
    days=st.frozensets(st.integers(0, 6), min_size=1),
    seconds=st.integers(1_700_000_000, 1_900_000_000),
)
def test_opening_is_open_and_nothing_before_it_is(begin: time, end: time, days: frozenset[int], seconds: int) -> None:
    hours, moment = [Hours(days, begin, end, BERLIN)], datetime.fromtimestamp(seconds, UTC)
    found = opening(hours, moment)
    assert is_open(hours, found)
    between = (moment + (found - moment) * step / 7 for step in range(7))
    assert found == moment or not any(is_open(hours, instant) for instant in between)
