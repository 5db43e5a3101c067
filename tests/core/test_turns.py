"""Which batches go next."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from builders import NOON, a_batch
from headrace.api.meta import ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.core.turns import Waiting, next_turns

NAMESPACES = st.sampled_from("abc")


def waiting(name: str, minutes: int = 0, priority: int = 0, namespace: str = "default", **more: bool) -> Waiting:
    return Waiting(name, namespace, NOON + timedelta(minutes=minutes), priority, **more)  # type: ignore[arg-type]


def turns(*line: Waiting, working: int = 0, ending: int = 0, most: int = 2) -> list[str]:
    found = next_turns(line, ["default"] * working, ["default"] * ending, most, NOON)
    return [one.name for one, _ in found]


def test_next_turns_are_by_priority_then_age() -> None:
    line = [waiting("young", 2), waiting("old", 1), waiting("urgent", 9, priority=1)]
    assert turns(*line, most=3) == ["urgent", "old", "young"]
    assert turns(*line, most=3, working=2) == ["urgent"]
    assert turns(*line, most=3, working=3) == []


def test_next_turns_of_what_is_only_to_end_waits_for_nobodys_work() -> None:
    late = Waiting("late", "default", NOON, deadline=NOON)
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
    st.lists(
        st.builds(
            waiting, st.uuids().map(str), st.integers(0, 9), st.integers(0, 3), NAMESPACES, cancelled=st.booleans()
        )
    ),
    st.lists(NAMESPACES, max_size=5),
    st.lists(NAMESPACES, max_size=5),
    st.integers(1, 5),
)
def test_next_turns_are_never_more_than_there_is_room_for(
    line: list[Waiting], working: list[str], ending: list[str], most: int
) -> None:
    found = next_turns(line, working, ending, most, NOON)
    names = [one.name for one, _ in found]
    assert len(set(names)) == len(names)
    for sort, busy in ((False, working), (True, ending)):
        begun = [one.namespace for one, to_end in found if to_end is sort]
        counts = Counter([*busy, *begun])
        assert counts.total() <= max(most, len(busy)) + len({*begun} - {*busy})
        waits = {one.namespace for one in line if one.is_to_end(NOON) is sort}
        assert all(counts[namespace] for namespace in waits), "whoever has nothing under way waits for nobody"


def test_next_turns_are_shared_by_namespaces() -> None:
    flood = [waiting(f"flood{number}", priority=9, namespace="loud") for number in range(9)]
    found = next_turns([*flood, waiting("one", 9, namespace="quiet")], ["loud", "loud"], [], 2, NOON)
    assert [one.name for one, _ in found] == ["one"]
    found = next_turns([*flood, waiting("one", 9), waiting("two", 9)], ["loud"], [], 4, NOON)
    assert [one.name for one, _ in found] == ["one", "flood0", "two"]
