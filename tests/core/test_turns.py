"""Which batches go next."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from builders import NOON, a_batch
from headrace.api.meta import ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.core.turns import Waiting, next_turns


def waiting(name: str, minutes: int = 0, priority: int = 0, **more: bool) -> Waiting:
    return Waiting(name, NOON + timedelta(minutes=minutes), priority, **more)  # type: ignore[arg-type]


def turns(*line: Waiting, working: int = 0, ending: int = 0, most: int = 2) -> list[str]:
    found = next_turns(line, range(working), range(ending), most, NOON)  # type: ignore[arg-type]
    return [one.name for one, _ in found]


def test_next_turns_are_by_priority_then_age() -> None:
    line = [waiting("young", 2), waiting("old", 1), waiting("urgent", 9, priority=1)]
    assert turns(*line, most=3) == ["urgent", "old", "young"]
    assert turns(*line, most=3, working=2) == ["urgent"]
    assert turns(*line, most=3, working=3) == []


def test_next_turns_of_what_is_only_to_end_waits_for_nobodys_work() -> None:
    late = Waiting("late", NOON, deadline=NOON)
    line = [waiting("a"), waiting("gone", cancelled=True), late]
    assert turns(*line, working=2) == ["gone", "late"]
    assert turns(*line, working=2, ending=1) == ["gone"]


def test_next_turns_leave_what_is_suspended_alone_until_it_is_to_end() -> None:
    assert turns(waiting("rests", at_rest=True)) == []
    assert turns(waiting("rests", at_rest=True, cancelled=True)) == ["rests"]


def test_waiting_of_a_batch() -> None:
    batch = a_batch().with_spec(completionDeadlineSeconds=60, priority=3, suspend=True)
    known = Waiting.of(batch.build(), NOON)
    assert (known.deadline, known.priority, known.at_rest) == (NOON + timedelta(minutes=1), 3, False)
    resting = batch.with_condition(ConditionType.SUSPENDED, ConditionStatus.TRUE, Reason.SUSPENDED)
    assert Waiting.of(resting.build(), NOON).at_rest


@given(
    st.lists(st.builds(waiting, st.uuids().map(str), st.integers(0, 9), st.integers(0, 3), cancelled=st.booleans())),
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(1, 5),
)
def test_next_turns_are_never_more_than_there_is_room_for(
    line: list[Waiting], working: int, ending: int, most: int
) -> None:
    found = next_turns(line, range(working), range(ending), most, NOON)  # type: ignore[arg-type]
    names = [one.name for one, _ in found]
    assert len(set(names)) == len(names)
    begun = [to_end for _, to_end in found]
    assert working + begun.count(False) <= max(most, working)
    assert ending + begun.count(True) <= max(most, ending)
