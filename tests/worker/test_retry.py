"""Delays between the tries of a record, and when it has had them all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.common import Backoff, Retries
from headrace.api.records import Request
from headrace_worker.engines.base import Work
from headrace_worker.retry import RetryQueue, delay_seconds

STEADY = Backoff(base_seconds=4, factor=1, cap_seconds=4)


def a_work(position: int = 0, attempt: int = 1) -> Work:
    return Work(position, Request(f"r{position}", {}), tokens=1, attempt=attempt)


def a_queue(limit: int = 3, backoff: Backoff = STEADY) -> RetryQueue:
    return RetryQueue(Retries(limit=limit, backoff=backoff), seed="uid-reviews")


@pytest.mark.parametrize(
    ("failures", "ceiling"),
    [
        pytest.param(1, 2, id="the base after the first failure"),
        pytest.param(2, 6, id="times the factor after the second"),
        pytest.param(4, 54, id="times its third power after the fourth"),
        pytest.param(5, 60, id="never more than the cap"),
        pytest.param(101, 60, id="never more than the cap however often"),
    ],
)
def test_delay_seconds_is_any_part_of(failures: int, ceiling: float) -> None:
    backoff = Backoff(base_seconds=2, factor=3, cap_seconds=60)
    delays = [delay_seconds(backoff, "seed", position, failures) for position in range(500)]
    assert 0 <= min(delays) < ceiling * 0.02
    assert ceiling * 0.98 < max(delays) < ceiling


def test_delay_seconds_is_the_same_in_every_run_and_another_for_another_record() -> None:
    assert delay_seconds(STEADY, "seed", 1, 1) == delay_seconds(STEADY, "seed", 1, 1)
    others = [("seed", 2, 1), ("seed", 1, 2), ("other", 1, 1)]
    assert all(delay_seconds(STEADY, "seed", 1, 1) != delay_seconds(STEADY, *other) for other in others)


def test_park_takes_a_record_as_often_as_the_limit_says() -> None:
    queue, work = a_queue(limit=2), a_work()
    for attempt in (2, 3):
        assert queue.park(work, now=0.0)
        assert queue.has_failed(0)
        (work,) = queue.due(now=100.0)
        assert work.attempt == attempt
    assert not queue.park(work, now=0.0)
    assert not queue.has_failed(0)
    assert len(queue) == 0


def test_park_counts_failures_and_not_attempts_that_were_lost() -> None:
    queue = a_queue(limit=1)
    assert queue.park(a_work(attempt=7), now=0.0)


def test_park_without_retries_takes_nothing() -> None:
    assert not a_queue(limit=0).park(a_work(), now=0.0)


def test_due_gives_nothing_before_its_time() -> None:
    queue = a_queue()
    queue.park(a_work(), now=10.0)
    moment = queue.next_due()
    assert moment is not None
    assert 10.0 <= moment <= 14.0
    assert queue.due(moment - 1e-6) == []
    assert [work.position for work in queue.due(moment)] == [0]
    assert queue.next_due() is None


@given(st.lists(st.integers(0, 50), unique=True, max_size=30), st.floats(0, 100))
def test_due_gives_each_parked_record_once_soonest_first(positions: list[int], now: float) -> None:
    queue = a_queue()
    for position in positions:
        queue.park(a_work(position), now)
    early = queue.due(now + 2.0)
    late = queue.due(now + 4.0)
    moments = [delay_seconds(STEADY, "uid-reviews", work.position, 1) for work in early + late]
    assert sorted(work.position for work in early + late) == sorted(positions)
    assert moments == sorted(moments)
