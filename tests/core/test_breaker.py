"""The circuit breaker, as a table of what is seen and what it lets through."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import NOON
from headrace.core.breaker import FAILURES, LONGEST_REST, REST, Breaker, State


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def after_failures(*seconds: float, breaker: Breaker | None = None) -> Breaker:
    """Failures of different batches, so many seconds after noon."""
    breaker = breaker or Breaker()
    for second in seconds:
        breaker = breaker.failed(f"batch-{second}", at(second))
    return breaker


OPEN = after_failures(0, 1, 2)
"""Opened two seconds after noon; it may be tried a minute later."""
PROBED = OPEN.probed_by("probe")


@pytest.mark.parametrize(
    ("breaker", "seconds", "state"),
    [
        pytest.param(Breaker(), 0, State.CLOSED, id="a new one is closed"),
        pytest.param(after_failures(0, 1), 2, State.CLOSED, id="two failures are not enough"),
        pytest.param(OPEN, 2, State.OPEN, id="three failures open it"),
        pytest.param(after_failures(0, 1, 700), 700, State.CLOSED, id="failures that lie too far apart do not"),
        pytest.param(after_failures(0, 0, 0), 1, State.CLOSED, id="one failure that is seen three times does not"),
        pytest.param(
            after_failures(4, 5, breaker=after_failures(0, 1).succeeded("other", at(3))), 5, State.CLOSED,
            id="a success between them counts"),
        pytest.param(
            after_failures(5, breaker=after_failures(3, 4).succeeded("other", at(2))), 5, State.OPEN, id="an older success does not"),
        pytest.param(OPEN, 61, State.OPEN, id="it rests for a minute"),
        pytest.param(OPEN, 62, State.HALF_OPEN, id="then it may be tried"),
        pytest.param(PROBED.succeeded("probe", at(70)), 70, State.CLOSED, id="a probe that succeeds closes it"),
        pytest.param(PROBED.succeeded("other", at(70)), 70, State.HALF_OPEN, id="the success of another does not"),
        pytest.param(PROBED.failed("probe", at(70)), 70, State.OPEN, id="a probe that fails opens it again"),
        pytest.param(PROBED.failed("probe", at(70)), 189, State.OPEN, id="for twice as long"),
        pytest.param(PROBED.failed("probe", at(70)), 190, State.HALF_OPEN, id="and no longer"),
        pytest.param(PROBED.failed("other", at(70)), 70, State.HALF_OPEN, id="the failure of another changes nothing"),
        pytest.param(after_failures(0, 1, 2, breaker=OPEN), 62, State.HALF_OPEN, id="what was seen before is history"),
        pytest.param(OPEN.failed("late", at(1)), 62, State.HALF_OPEN, id="a late failure does not prolong the rest"),
        pytest.param(
            OPEN.succeeded("lost", at(80), started=at(65)), 80, State.CLOSED, id="who was started when it might be tried was the probe"),
        pytest.param(
            OPEN.succeeded("old", at(80), started=at(0)), 80, State.HALF_OPEN, id="who was started before that was not"),
    ],
)  # fmt: skip
def test_state(breaker: Breaker, seconds: float, state: State) -> None:
    assert breaker.state(at(seconds)) == state


def test_lets_through_one_probe_at_a_time() -> None:
    assert not OPEN.lets_through(at(10))
    assert OPEN.lets_through(at(100))
    assert not PROBED.lets_through(at(100))
    assert not PROBED.released_by("other").lets_through(at(100))
    assert PROBED.released_by("probe").lets_through(at(100))
    assert PROBED.succeeded("probe", at(100)).lets_through(at(100))


SEEN = st.lists(
    st.tuples(st.sampled_from(["ok", "failed", "probe", "release"]), st.sampled_from("abc"), st.integers(0, 3000)),
    max_size=40,
)


@given(SEEN)
def test_any_history_keeps_the_rules(seen: list[tuple[str, str, int]]) -> None:
    """Whatever comes in whatever order: closed means no more than two failures; a rest is bounded; nothing seen twice counts twice."""
    breaker = Breaker()
    for what, who, second in seen:
        match what:
            case "ok":
                breaker = breaker.succeeded(who, at(second))
                assert breaker.succeeded(who, at(second)) == breaker
            case "failed":
                breaker = breaker.failed(who, at(second))
                assert breaker.failed(who, at(second)) == breaker
            case "probe" if breaker.lets_through(at(second)) and breaker.state(at(second)) == State.HALF_OPEN:
                breaker = breaker.probed_by(who)
                assert not breaker.lets_through(at(second))
            case "release":
                breaker = breaker.released_by(who)
        assert len(breaker.failures) < FAILURES
        if breaker.opened_at is not None and breaker.retry_at is not None:
            assert REST <= breaker.retry_at - breaker.opened_at <= LONGEST_REST
