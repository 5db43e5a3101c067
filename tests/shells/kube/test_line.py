"""The fair line: flows take turns, the most urgent and then the first of a flow comes first, and nobody waits for ever."""

from __future__ import annotations

import random
import sys
from collections import Counter, defaultdict, deque
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.shells.kube.line import LATELY, FairLine, Urgency

Key: TypeAlias = tuple[str, int]
"""Its flow and its number."""


def flow_of(key: Key) -> str:
    return key[0]


def line_of(*keys: Key, at_most: int = sys.maxsize) -> FairLine[Key]:
    line = FairLine(flow_of, at_most)
    for key in keys:
        line.append(key)
    return line


def served(line: FairLine[Key]) -> list[str]:
    """The flows in the order in which one worker takes their keys."""
    found = []
    while line:
        key = line.popleft()
        found.append(key[0])
        line.release(key)
    return found


def test_popleft_takes_flows_in_turn() -> None:
    line = line_of(*(("a", n) for n in range(4)), ("b", 0), ("b", 1), ("c", 0))
    assert served(line) == ["a", "b", "c", "a", "b", "a", "a"]


def test_popleft_of_one_flow_takes_the_first_first() -> None:
    line = line_of(("a", 2), ("a", 0), ("a", 1))
    assert [line.popleft()[1] for _ in range(3)] == [2, 0, 1]


def test_popleft_prefers_the_flow_that_has_less_in_hand() -> None:
    line = line_of(*(("a", n) for n in range(9)))
    taken = [line.popleft() for _ in range(3)]
    line.append(("b", 0))
    line.append(("b", 1))
    line.append(("b", 2))
    line.append(("b", 3))
    assert [line.popleft()[0] for _ in range(4)] == ["b", "b", "b", "a"], "until b has as many in hand as a"
    for key in taken:
        line.release(key)
    assert line.popleft()[0] == "a"


def test_popleft_of_one_flow_takes_the_most_urgent_first() -> None:
    line = FairLine(flow_of)
    line.append(("a", 0), Urgency.WHENEVER)
    line.append(("a", 1))
    line.append(("a", 2), Urgency.NOW)
    line.append(("a", 3), Urgency.NOW)
    assert [line.popleft()[1] for _ in range(4)] == [2, 3, 1, 0]


def test_urgency_is_a_matter_within_one_flow() -> None:
    line = FairLine(flow_of)
    for number in range(3):
        line.append(("a", number), Urgency.NOW)
    line.append(("b", 0), Urgency.WHENEVER)
    assert served(line) == ["a", "b", "a", "a"]


def test_hurry_brings_a_key_forward_and_never_back() -> None:
    line = FairLine(flow_of)
    for number in range(3):
        line.append(("a", number), Urgency.WHENEVER)
    line.append(("a", 3), Urgency.NOW)
    line.hurry(("a", 2), Urgency.SOON)
    line.hurry(("a", 3), Urgency.SOON)
    assert [line.popleft()[1] for _ in range(4)] == [3, 2, 0, 1]


def test_a_flow_beside_others_has_no_more_in_hand_than_it_may() -> None:
    line = FairLine(flow_of, 2)
    line.append(("b", 0))
    line.release(line.popleft())
    for number in range(3):
        line.append(("a", number))
    first = line.popleft()
    line.popleft()
    assert (line.next_hands, len(line)) == (None, 1)
    with pytest.raises(IndexError, match="nobody waits who may be taken"):
        line.popleft()
    line.append(("b", 1))
    assert line.popleft() == ("b", 1)
    line.release(first)
    assert line.popleft() == ("a", 2)


def test_a_flow_alone_may_have_all_in_hand() -> None:
    line = FairLine(flow_of, 2)
    for number in range(9):
        line.append(("a", number))
    assert [line.popleft()[1] for _ in range(8)] == list(range(8))
    line.append(("b", 0))
    assert line.popleft() == ("b", 0)
    assert line.next_hands is None, "from now on it is not alone"


def test_a_flow_is_alone_again_once_no_other_was_served_for_long() -> None:
    line = line_of(("b", 0), at_most=1)
    line.release(line.popleft())
    for number in range(LATELY - 1):
        line.append(("a", number))
        line.release(line.popleft())
    line.append(("a", 97))
    line.append(("a", 98))
    line.append(("a", 99))
    first = line.popleft()
    assert line.next_hands == 1, "b was served longer ago"
    line.append(("b", 1))
    assert line.popleft() == ("b", 1)
    assert line.next_hands is None, "and now it was again"
    line.release(first)
    assert line.popleft() == ("a", 98)


def test_popleft_of_nobody_says_so() -> None:
    with pytest.raises(IndexError, match="nobody waits"):
        line_of().popleft()


def test_iter_shows_all_that_wait() -> None:
    line = line_of(("a", 0), ("b", 0), ("a", 1))
    line.popleft()
    assert (sorted(line), len(line)) == ([("a", 1), ("b", 0)], 2)


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 5))
def test_nobody_waits_longer_than_its_turn(seed: int, workers: int, flows: int) -> None:
    """Whatever others have in line, a flow that has nothing in hand waits for one key of each other flow at most."""
    dice, line = random.Random(seed), FairLine(flow_of)
    queues: dict[str, deque[Key]] = defaultdict(deque)
    passed: dict[str, Counter[str]] = defaultdict(Counter)
    hands: list[Key] = []
    for number in range(200):
        if dice.random() < 0.6:
            key = (dice.choice("abcde"[:flows]), number)
            line.append(key)
            queues[key[0]].append(key)
        elif hands and dice.random() < 0.6:
            line.release(hands.pop(dice.randrange(len(hands))))
        if line and len(hands) < workers:
            idle = {flow for flow, keys in queues.items() if keys and not any(key[0] == flow for key in hands)}
            key = line.popleft()
            hands.append(key)
            assert key == queues[key[0]].popleft(), "the first of a flow comes first"
            passed.pop(key[0], None)
            for flow in idle - {key[0]}:
                passed[flow][key[0]] += 1
                assert passed[flow][key[0]] <= 1
    while hands or line:
        if hands:
            line.release(hands.pop())
        if line:
            hands.append(line.popleft())
            queues[hands[-1][0]].popleft()
    assert not any(queues.values()), "none is lost"
