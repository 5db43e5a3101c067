"""When the time of a record is over: from its first try on, whatever happens in between, and not while nothing could be done."""

from __future__ import annotations

from headrace.api.common import Backoff, Retries
from headrace.api.records import ErrorCode, Request
from headrace_worker.deadlines import Deadlines
from headrace_worker.engines.base import Outcome, Work
from headrace_worker.retry import RetryQueue


def works(*positions: int) -> list[Work]:
    return [Work(position, Request(f"r{position}", {}), 1) for position in positions]


def test_overdue_says_each_record_once_when_its_time_is_over() -> None:
    deadlines = Deadlines(10)
    deadlines.begin(works(0, 1), 100.0)
    deadlines.begin(works(2), 105.0)
    assert deadlines.overdue(109.9) == []
    assert deadlines.overdue(110.0) == [0, 1]
    assert deadlines.overdue(114.9) == []
    assert deadlines.overdue(200.0) == [2]


def test_overdue_says_nothing_of_records_that_are_finished() -> None:
    deadlines = Deadlines(10)
    deadlines.begin(works(0, 1), 100.0)
    deadlines.finish([Outcome(works(0)[0])])
    assert deadlines.overdue(200.0) == [1]


def test_begin_another_try_has_what_is_left_of_the_time() -> None:
    deadlines = Deadlines(10)
    deadlines.begin(works(0), 100.0)
    deadlines.begin(works(0), 108.0)
    assert deadlines.end(0) == 110.0
    assert deadlines.overdue(110.0) == [0]
    deadlines.begin(works(0), 111.0)
    assert deadlines.overdue(111.0) == [0], "given to the engine too late, it is said again"


def test_hold_time_in_which_nothing_could_be_done_does_not_count() -> None:
    deadlines = Deadlines(10)
    deadlines.begin(works(0), 100.0)
    deadlines.hold(3600.0)
    assert deadlines.end(0) == 3710.0
    assert deadlines.overdue(3709.0) == []
    deadlines.begin(works(1), 3705.0)
    assert deadlines.overdue(3710.0) == [0]
    assert deadlines.overdue(3715.0) == [1]


def test_records_without_a_deadline_are_never_overdue() -> None:
    deadlines = Deadlines(None)
    deadlines.begin(works(0), 100.0)
    assert (deadlines.overdue(1e9), deadlines.end(0)) == ([], None)


def test_outcomes_name_the_field() -> None:
    (outcome,) = Deadlines(7).outcomes(works(3))
    assert outcome.error is not None
    assert (outcome.error.code, outcome.retriable) == (ErrorCode.DEADLINE_EXCEEDED, False)
    assert outcome.error.message == "there was no answer within 7 s (recordDeadlineSeconds)"


def test_park_keeps_a_record_no_longer_than_its_time_lasts() -> None:
    retries = RetryQueue(Retries(limit=1, backoff=Backoff(base_seconds=3600, cap_seconds=3600)), seed="s")
    (work,) = works(0)
    assert retries.park(work, 100.0, 100.5)
    assert retries.next_due() == 100.5
