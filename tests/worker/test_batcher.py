"""The batcher's promises, whatever the records, the limits and the order in which things happen."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.common import Batching, OrderBy
from headrace.api.records import Request
from headrace_worker.batcher import FAIRNESS_INTERVAL, Batcher, BatchLimits
from headrace_worker.engines.base import Work
from headrace_worker.sortedkeys import SortedKeys

WAIT_SECONDS = 10.0


def a_work(position: int, tokens: int = 10, prompt: str = "") -> Work:
    return Work(position, Request(f"r{position}", {"prompt": prompt}), tokens)


def a_batcher(size: int = 4, tokens: int = 1000, order_by: OrderBy = OrderBy.NONE, *works: Work) -> Batcher:
    batcher = Batcher(BatchLimits(size, tokens, WAIT_SECONDS, order_by))
    for work in works:
        batcher.add(work, 0.0)
    return batcher


def positions(batch: list[Work]) -> list[int]:
    return [work.position for work in batch]


def test_batch_limits_are_those_of_the_spec() -> None:
    limits = BatchLimits.of(Batching(max_batch_size=3, max_batch_tokens=7, max_wait_milliseconds=250))
    assert limits == BatchLimits(3, 7, 0.25, OrderBy.LENGTH)


def test_next_batch_that_is_full_does_not_wait() -> None:
    batcher = a_batcher(2, 1000, OrderBy.NONE, a_work(0), a_work(1), a_work(2))
    assert positions(batcher.next_batch(0.0, 8, more_coming=True)) == [0, 1]
    assert batcher.next_batch(0.0, 8, more_coming=True) == []


def test_next_batch_that_fills_the_room_of_the_engine_does_not_wait() -> None:
    batcher = a_batcher(8, 1000, OrderBy.NONE, a_work(0), a_work(1))
    assert positions(batcher.next_batch(0.0, 1, more_coming=True)) == [0]


def test_next_batch_that_has_enough_tokens_does_not_wait() -> None:
    batcher = a_batcher(8, 25, OrderBy.NONE, a_work(0), a_work(1), a_work(2))
    assert positions(batcher.next_batch(0.0, 8, more_coming=True)) == [0, 1]


def test_next_batch_waits_until_its_oldest_record_has_waited_enough() -> None:
    batcher = a_batcher()
    batcher.add(a_work(0), 1.0)
    batcher.add(a_work(1), 5.0)
    assert batcher.next_deadline() == 1.0 + WAIT_SECONDS
    assert batcher.next_batch(10.99, 8, more_coming=True) == []
    assert positions(batcher.next_batch(11.0, 8, more_coming=True)) == [0, 1]
    assert batcher.next_deadline() is None


def test_next_batch_does_not_wait_when_nothing_more_is_coming() -> None:
    batcher = a_batcher(8, 1000, OrderBy.NONE, a_work(0))
    assert positions(batcher.next_batch(0.0, 8, more_coming=False)) == [0]


def test_next_batch_for_an_engine_without_room_is_empty() -> None:
    batcher = a_batcher(2, 1000, OrderBy.NONE, a_work(0), a_work(1))
    assert batcher.next_batch(99.0, 0, more_coming=False) == []
    assert len(batcher) == 2


def test_next_batch_takes_a_record_over_the_token_limit_alone() -> None:
    works = [a_work(0, 10), a_work(1, 500), a_work(2, 10)]
    batcher = a_batcher(8, 100, OrderBy.NONE, *works)
    batches = [positions(batcher.next_batch(0.0, 8, more_coming=False)) for _ in range(3)]
    assert batches == [[0], [1], [2]]


def test_next_batch_by_length_puts_similar_lengths_together_longest_first() -> None:
    works = [a_work(i, tokens) for i, tokens in enumerate([5, 90, 7, 80, 6, 85])]
    batcher = a_batcher(3, 1000, OrderBy.LENGTH, *works)
    assert positions(batcher.next_batch(0.0, 8, more_coming=True)) == [1, 5, 3]
    assert positions(batcher.next_batch(0.0, 8, more_coming=True)) == [2, 4, 0]


def test_next_batch_by_prefix_puts_the_same_beginnings_together() -> None:
    prompts = ["translate: a", "summarise: b", "translate: c", "summarise: d"]
    batcher = a_batcher(2, 1000, OrderBy.PREFIX, *(a_work(i, 10, prompt) for i, prompt in enumerate(prompts)))
    batches = [set(positions(batcher.next_batch(0.0, 8, more_coming=True))) for _ in range(2)]
    assert batches == [{0, 2}, {1, 3}]


def test_next_batch_serves_the_oldest_record_although_longer_ones_keep_coming() -> None:
    batcher = a_batcher(2, 1000, OrderBy.LENGTH, a_work(0, 1))
    served: list[int] = []
    for turn in range(1, FAIRNESS_INTERVAL + 1):
        batcher.add(a_work(2 * turn, 50), float(turn))
        batcher.add(a_work(2 * turn + 1, 50), float(turn))
        served += positions(batcher.next_batch(float(turn), 2, more_coming=True))
    assert 0 in served


@dataclass
class Scenario:
    """A run of the batcher: what was added when, and the batches that came out of it."""

    limits: BatchLimits
    added: list[tuple[Work, float]] = field(default_factory=list)
    batches: list[list[Work]] = field(default_factory=list)
    oldest_waiting: list[int | None] = field(default_factory=list)
    """Before each batch, the position that had waited longest."""


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """Adds and takes in any order, with time going on, and every promise about waiting checked at each step."""
    limits = BatchLimits(
        draw(st.integers(1, 6)), draw(st.integers(1, 60)), WAIT_SECONDS, draw(st.sampled_from(OrderBy))
    )
    scenario, batcher, now, waiting = Scenario(limits), Batcher(limits), 0.0, dict[int, float]()
    steps = draw(
        st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8), st.booleans(), st.sampled_from("abc")), max_size=60)
    )
    for position, (tokens, room, more_coming, prompt) in enumerate(steps):
        now += tokens / 4
        work = a_work(position, tokens, prompt)
        batcher.add(work, now)
        scenario.added.append((work, now))
        waiting[position] = now
        _take(scenario, batcher, waiting, now, room, more_coming=more_coming)
    while waiting:
        _take(scenario, batcher, waiting, now, 8, more_coming=False)
    assert len(batcher) == 0
    assert batcher.next_deadline() is None
    return scenario


def _take(
    scenario: Scenario, batcher: Batcher, waiting: dict[int, float], now: float, room: int, *, more_coming: bool
) -> None:
    assert batcher.next_deadline() == (min(waiting.values()) + WAIT_SECONDS if waiting else None)
    oldest = next(iter(waiting), None)
    batch = batcher.next_batch(now, room, more_coming=more_coming)
    must_be_cut = room > 0 and waiting and (not more_coming or now >= min(waiting.values()) + WAIT_SECONDS)
    assert batch or not must_be_cut
    assert len(batch) <= room
    if batch:
        scenario.batches.append(batch)
        scenario.oldest_waiting.append(oldest)
    for work in batch:
        del waiting[work.position]
    assert len(batcher) == len(waiting)


@given(scenarios())
def test_every_record_is_in_exactly_one_batch(scenario: Scenario) -> None:
    taken = [work for batch in scenario.batches for work in batch]
    assert sorted(work.position for work in taken) == [work.position for work, _ in scenario.added]


@given(scenarios())
def test_no_batch_is_over_its_limits_but_a_lone_long_record(scenario: Scenario) -> None:
    for batch in scenario.batches:
        assert len(batch) <= scenario.limits.max_batch_size
        assert len(batch) == 1 or sum(work.tokens for work in batch) <= scenario.limits.max_batch_tokens


@given(scenarios())
def test_the_oldest_record_is_in_one_of_the_next_batches(scenario: Scenario) -> None:
    served = {work.position: number for number, batch in enumerate(scenario.batches) for work in batch}
    for number, oldest in enumerate(scenario.oldest_waiting):
        assert oldest is not None
        assert served[oldest] < number + FAIRNESS_INTERVAL


@given(st.lists(st.integers(1, 30), min_size=2, max_size=40), st.integers(2, 6))
def test_batches_by_length_are_runs_of_the_sorted_lengths(lengths: list[int], size: int) -> None:
    """No waiting record is closer to a batch than its own members are: the batch is a run of what waits, sorted."""
    batcher = a_batcher(size, 10**9, OrderBy.LENGTH, *(a_work(i, tokens) for i, tokens in enumerate(lengths)))
    waiting = sorted(lengths)
    while len(batcher):
        batch = sorted(work.tokens for work in batcher.next_batch(0.0, size, more_coming=False))
        runs = [waiting[i : i + len(batch)] for i in range(len(waiting) - len(batch) + 1)]
        assert batch in runs
        for tokens in batch:
            waiting.remove(tokens)


@pytest.mark.parametrize("order_by", list(OrderBy))
def test_records_of_the_same_key_leave_in_the_order_of_their_arrival(order_by: OrderBy) -> None:
    batcher = a_batcher(3, 10**9, order_by, *(a_work(i, 10, "same") for i in range(9)))
    batches = [positions(batcher.next_batch(0.0, 8, more_coming=False)) for _ in range(3)]
    assert batches == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10_000)), max_size=300), st.integers(2, 8))
def test_sorted_keys_are_those_of_a_sorted_set(steps: list[tuple[bool, int]], most_in_a_run: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headrace_worker.sortedkeys._MOST_IN_A_RUN", most_in_a_run)
        keys, expected = SortedKeys[int](), set[int]()
        for add, key in steps:
            if add and key not in expected:
                keys.add(key)
                expected.add(key)
            elif expected:
                gone = min(expected, key=lambda known: abs(known - key))
                keys.remove(gone)
                expected.remove(gone)
        for key in expected:
            below, above = [k for k in expected if k <= key], [k for k in expected if k > key]
            assert list(keys.around(key)) == sorted(below, reverse=True) + sorted(above)
        assert not expected or keys.last() == max(expected)
