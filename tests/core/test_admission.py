"""Admission as a table: who waits and runs, and what the verdicts are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from admission_builders import a_bulkhead, failed, holds, wants, with_gpus
from builders import NOON
from headrace.api.bulkhead import Bulkhead
from headrace.api.reasons import Reason
from headrace.core.admission.admit import admit
from headrace.core.admission.demand import Demand
from headrace.core.observed import Verdict


def verdicts(demands: Sequence[Demand], *bulkheads: Bulkhead, after: float = 0) -> dict[str, Verdict]:
    return dict(admit(demands, (), bulkheads, NOON + timedelta(seconds=after)))


def reasons(demands: Sequence[Demand], *bulkheads: Bulkhead) -> dict[str, str]:
    return {key: verdict.reason.value for key, verdict in verdicts(demands, *bulkheads).items()}


def pods(demands: Sequence[Demand], *bulkheads: Bulkhead) -> dict[str, int]:
    """Pods of those that may run."""
    return {key: verdict.pods or 0 for key, verdict in verdicts(demands, *bulkheads).items() if verdict.admitted}


def test_admit_has_a_verdict_on_each_that_wants_something() -> None:
    demands = [holds("team/x"), wants("team/a"), wants("team/b", bulkhead="other"), wants("team/over", wants=False)]
    found = admit(demands[1:], demands[:1], [with_gpus(1)], NOON)
    assert (set(found), len(found)) == ({"team/x", "team/a", "team/b"}, 3)
    assert "team/over" not in found
    assert "team/unheard-of" not in found


def test_admit_counts_a_batch_once_that_is_given_twice() -> None:
    found = admit([wants("team/a"), wants("team/b", waited=9)], [wants("team/a")], [with_gpus(1)], NOON)
    assert [(found[key].admitted, found[key].position) for key in ("team/a", "team/b")] == [(False, 1), (True, None)]


SELECTIVE = {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["gold"]}]}
BUDGET = {"name": "day", "resource": "gpuSeconds", "limit": 100, "windowSeconds": 86400}
SPENT = {"budgets": [{"name": "day", "used": 120, "slots": "1768478400:120"}]}


@pytest.mark.parametrize(
    ("demands", "bulkhead", "reason", "message"),
    [
        pytest.param(
            [holds("team/x", 6), wants("team/a", 4)],
            with_gpus(8),
            "QuotaExceeded",
            "needs 4 GPU, 6 of 8 used",
            id="too few GPUs are free",
        ),
        pytest.param(
            [holds("team/x", 3), wants("team/a", 4, gpus=2, at_least=2)],
            with_gpus(6),
            "QuotaExceeded",
            "needs 4 GPU, 3 of 6 used",
            id="the least it starts with is what counts",
        ),
        pytest.param(
            [holds("team/x", 6, gpus=0), wants("team/a", 3, gpus=0)],
            a_bulkhead(capacity={"pods": 8}),
            "QuotaExceeded",
            "needs 3 pods, 6 of 8 used",
            id="too few pods are free",
        ),
        pytest.param(
            [holds("team/x"), wants("team/a")],
            a_bulkhead(capacity={"batches": 1}),
            "QuotaExceeded",
            "needs 1 batch, 1 of 1 used",
            id="no further batch may run",
        ),
        pytest.param(
            [holds("team/x", gpus=0, calls=64), wants("team/a", gpus=0, calls=64)],
            a_bulkhead(capacity={"endpointCalls": 100}),
            "QuotaExceeded",
            "needs 64 endpoint calls, 64 of 100 used",
            id="too few endpoint calls are free",
        ),
        pytest.param(
            [holds("team/x", 2), wants("team/a", 1)],
            a_bulkhead(perResource=[{"name": "nvidia.com/gpu", "gpus": 2}]),
            "QuotaExceeded",
            "needs 1 nvidia.com/gpu, 2 of 2 used",
            id="too few GPUs of its kind are free",
        ),
        pytest.param(
            [holds("team/x", 2), wants("team/a", 1)],
            with_gpus(8, perNamespace={"gpus": 2}),
            "QuotaExceeded",
            "needs 1 GPU, 2 of 2 used by namespace team",
            id="its namespace has all that it may have",
        ),
        pytest.param(
            [wants("team/a", 9)],
            with_gpus(8),
            "ExceedsCapacity",
            "needs 9 GPU, Bulkhead prod may have 8: ask for less, or have the Bulkhead enlarged",
            id="more than there is is said at once",
        ),
        pytest.param(
            [wants("team/a", 3)],
            with_gpus(8, perNamespace={"gpus": 2}),
            "ExceedsCapacity",
            "needs 3 GPU, a namespace there may have 2: ask for less, or have the Bulkhead enlarged",
            id="more than a namespace may have is said at once",
        ),
        pytest.param(
            [wants("team/a", bulkhead="gold")],
            with_gpus(8),
            "UnknownBulkhead",
            "there is no Bulkhead gold: create it, or make the batch anew with another bulkheadName",
            id="a bulkhead that is not there",
        ),
        pytest.param(
            [wants("team/a")],
            with_gpus(8, namespaceSelector=SELECTIVE),
            "NamespaceNotSelected",
            "the namespaceSelector of Bulkhead prod does not take namespace team",
            id="a namespace that is not selected",
        ),
        pytest.param(
            [wants("team/a", wants=False, suspended=True)],
            with_gpus(8),
            "SuspendedBySpec",
            "spec.suspend is true: set it to false to go on",
            id="suspended by its owner",
        ),
        pytest.param(
            [*(holds(f"team/{n}", started=NOON - timedelta(seconds=20)) for n in "xy"), wants("team/a")],
            a_bulkhead(capacity={"startsPerMinute": 2}),
            "StartsPerMinute",
            "2 batches have started within a minute, the most that may; the next may start at 12:00:40Z",
            id="two of two have started in this minute",
        ),
        pytest.param(
            [wants("team/a")],
            a_bulkhead(status=SPENT, budgets=[BUDGET]),
            "BudgetExhausted",
            "budget day: 120 of 100 gpuSeconds used in 86400 s, exhausted until 2026-01-16T13:00:00Z",
            id="a budget is used up",
        ),
        pytest.param(
            [*(failed(f"team/{n}", -n) for n in (30, 20, 10)), wants("team/a")],
            with_gpus(8),
            "BreakerOpen",
            "model mock: batches have failed in a row; one will be tried at 12:00:50Z",
            id="its model has failed three times",
        ),
        pytest.param(
            [holds("team/x", 6), wants("team/big", 4, waited=700), wants("team/a", 2)],
            with_gpus(8),
            "CapacityReserved",
            "room is kept for team/big (needs 4 GPU, 6 of 8 used), which waits since 11:48:20Z",
            id="what is free is kept for one that has waited for long",
        ),
        pytest.param(
            [wants("team/a", 2, held=2, admitted=False)],
            with_gpus(8),
            "Preempted",
            "its pods put their work away",
            id="it drains, as an earlier process has decided",
        ),
    ],
)
def test_admit_says_why_a_batch_waits(demands: list[Demand], bulkhead: Bulkhead, reason: str, message: str) -> None:
    verdict = verdicts(demands, bulkhead)["team/a"]
    assert (verdict.admitted, verdict.reason.value, verdict.message) == (False, reason, message)


@pytest.mark.parametrize(
    ("demands", "bulkhead", "expected"),
    [
        pytest.param([wants("team/a", 4)], with_gpus(8), {"team/a": 4}, id="there is room"),
        pytest.param([wants("team/a", 10**6, gpus=8)], a_bulkhead(), {"team/a": 10**6}, id="what is not said is not limited"),
        pytest.param([wants("team/a", bulkhead="default")], with_gpus(0), {"team/a": 1}, id="the default need not be made"),
        pytest.param([wants("team/a", gpus=0)], with_gpus(0), {"team/a": 1}, id="one without a GPU needs no GPU"),
        pytest.param(
            [wants("team/a", 8, at_least=2), holds("team/x", 5)], with_gpus(8), {"team/a": 3, "team/x": 5},
            id="it starts with the pods that there is room for"),
        pytest.param(
            [holds("team/a", 8, held=3)], with_gpus(8), {"team/a": 8}, id="it grows when there is room"),
        pytest.param(
            [holds("team/a", 8, held=3), wants("team/b", 2)], with_gpus(6), {"team/a": 4, "team/b": 2},
            id="who starts goes before who grows"),
        pytest.param(
            [holds("team/a", 8, held=3, priority=1), wants("team/b", 2)], with_gpus(6), {"team/a": 6},
            id="unless the one that grows has the higher priority"),
        pytest.param(
            [holds("team/a", 8, held=6), wants("team/b", 2)], with_gpus(4), {"team/a": 6},
            id="nobody is stopped because a limit was lowered"),
        pytest.param(
            [holds("team/a", 2, held=4)], with_gpus(4), {"team/a": 2}, id="it keeps only as many as it still wants"),
        pytest.param(
            [holds("gold/a", bulkhead="gold")], with_gpus(4), {"gold/a": 1}, id="who runs goes on without its bulkhead"),
        pytest.param(
            [wants("team/a", 2), wants("team/b", 3, waited=10), wants("team/c", 2)], with_gpus(4), {"team/b": 3},
            id="the older goes first, and the rest does not fit"),
        pytest.param(
            [wants("team/a", 4, waited=20), wants("team/b", 2, waited=10), holds("team/x", 2)], with_gpus(5),
            {"team/b": 2, "team/x": 2}, id="one that does not fit is passed"),
        pytest.param(
            [wants("team/a", 4, waited=601), wants("team/b", 1, gpus=0), holds("team/x", 2)], with_gpus(5),
            {"team/b": 1, "team/x": 2}, id="beside what is kept for another, what fits may pass"),
        pytest.param(
            [wants("team/a", 2, waited=601), wants("team/b", 2), holds("team/x", 2)], with_gpus(6, perNamespace={"gpus": 3}),
            {"team/x": 2}, id="what a namespace keeps for itself"),
        pytest.param(
            [wants("team/a", 2, waited=601), wants("other/b", 2), holds("team/x", 2)], with_gpus(6, perNamespace={"gpus": 3}),
            {"team/x": 2, "other/b": 2}, id="is kept from no other namespace"),
        pytest.param(
            [wants("team/a", 2), wants("team/b", 2, resource="amd.com/gpu")],
            a_bulkhead(perResource=[{"name": "nvidia.com/gpu", "gpus": 1}]), {"team/b": 2},
            id="another kind of GPU has limits of its own"),
        pytest.param(
            [wants("team/a", calls=64, gpus=0, pods=4, at_least=1)], a_bulkhead(capacity={"endpointCalls": 130}), {"team/a": 2},
            id="endpoint calls decide how many pods start"),
        pytest.param(
            [wants("gold/a"), wants("team/b")], with_gpus(8, namespaceSelector=SELECTIVE), {"gold/a": 1},
            id="the selected namespace is let in"),
        pytest.param(
            [wants(f"team/{n}") for n in range(9)], a_bulkhead(capacity={"startsPerMinute": 3}),
            {"team/0": 1, "team/1": 1, "team/2": 1}, id="only so many start in a minute"),
        pytest.param(
            [holds("team/a", 4, held=1), *(holds(f"team/{n}", started=NOON) for n in "xy")],
            a_bulkhead(capacity={"startsPerMinute": 2}), {"team/a": 4, "team/x": 1, "team/y": 1}, id="to grow is not to start"),
    ],
)  # fmt: skip
def test_admit_lets_in(demands: list[Demand], bulkhead: Bulkhead, expected: dict[str, int]) -> None:
    assert pods(demands, bulkhead) == expected


SOON = NOON + timedelta(minutes=30)


@pytest.mark.parametrize(
    ("demands", "spec", "first"),
    [
        pytest.param([wants("a/a", waited=9), wants("b/b", priority=1)], {}, "b/b", id="the higher priority"),
        pytest.param(
            [holds("a/x"), wants("a/a", waited=9), wants("b/b")], {}, "b/b", id="the namespace that holds less"),
        pytest.param(
            [holds("a/x", gpus=0), holds("b/x", 2, gpus=0), wants("b/b", waited=9), wants("a/a")], {"pods": 8}, "a/a",
            id="the namespace with the smaller dominant share"),
        pytest.param([wants("a/a", waited=9), wants("a/b", deadline=SOON)], {}, "a/b", id="the one with a deadline"),
        pytest.param(
            [wants("a/a", waited=9, deadline=SOON), wants("a/b", deadline=SOON + timedelta(minutes=10), run_seconds=1200)], {},
            "a/b", id="the one with less slack to its deadline"),
        pytest.param([wants("a/b"), wants("a/a", waited=9)], {}, "a/a", id="the older one"),
        pytest.param(
            [wants("a/b", deadline=SOON), wants("a/a", waited=90_000)], {}, "a/a", id="one that has waited for a day"),
    ],
)  # fmt: skip
def test_admit_lets_in_first(demands: list[Demand], spec: dict[str, Any], first: str) -> None:
    held = sum(demand.held for demand in demands)
    capacity = {"batches": sum(demand.held > 0 for demand in demands) + 1, **spec}
    admitted = pods(demands, with_gpus(held + 1, capacity=capacity))
    assert {key for key in admitted if not key.endswith("/x")} == {first}


@pytest.mark.parametrize(
    ("ordering", "expected"),
    [
        pytest.param(["Age"], ["b/old", "a/urgent", "b/soon"], id="by age alone"),
        pytest.param(["Deadline"], ["b/soon", "b/old", "a/urgent"], id="by deadline alone"),
        pytest.param(["Deadline", "Age"], ["b/soon", "b/old", "a/urgent"], id="by deadline, then age"),
        pytest.param(["Priority"], ["a/urgent", "b/old", "b/soon"], id="by priority, then age as always"),
        pytest.param(["FairShare", "Priority"], ["a/urgent", "b/old", "b/soon"], id="by share, then priority"),
    ],
)
def test_admit_follows_the_ordering(ordering: list[str], expected: list[str]) -> None:
    demands = [
        wants("a/urgent", priority=5, waited=10),
        wants("b/old", waited=90),
        wants("b/soon", deadline=SOON),
        holds("b/x"),
    ]
    found = verdicts(demands, with_gpus(1, ordering=ordering, preemption="Never"))
    waiting = sorted((verdict.position or 0, key) for key, verdict in found.items() if not verdict.admitted)
    assert [key for _, key in waiting] == expected
    assert [position for position, _ in waiting] == [1, 2, 3]


@pytest.mark.parametrize(
    ("demands", "spec", "expected"),
    [
        pytest.param(
            [holds("a/x", 4), wants("b/a", 4, priority=1)], {}, {"a/x": 0}, id="the lower priority gives way"),
        pytest.param(
            [holds("a/x", 4), wants("b/a", 4)], {}, {}, id="nobody gives way to an equal"),
        pytest.param(
            [holds("a/x", 4), wants("b/a", 4, priority=1)], {"preemption": "Never"}, {}, id="nobody gives way where that is off"),
        pytest.param(
            [holds("a/x", 4), wants("b/a", 4, priority=1)], {"ordering": ["FairShare"]}, {},
            id="nobody gives way where priority does not count"),
        pytest.param(
            [holds("a/x", 2), holds("a/y", 2, started=NOON), wants("b/a", 2, priority=1)], {}, {"a/y": 0},
            id="who started last gives way first"),
        pytest.param(
            [holds("a/x", 2, priority=1), holds("a/y", 2), wants("b/a", 2, priority=2)], {}, {"a/y": 0},
            id="the lowest priority gives way first"),
        pytest.param(
            [holds("a/x", 1), holds("a/y", 3, started=NOON - timedelta(hours=2)), wants("b/a", 3, priority=1)], {}, {"a/y": 0},
            id="nobody gives way in vain"),
        pytest.param(
            [holds("a/x", 4, at_least=1), wants("b/a", 2, priority=1)], {}, {"a/x": 2}, id="an elastic one gives only what is needed"),
        pytest.param(
            [holds("a/x", 4, at_least=3), wants("b/a", 2, priority=1)], {}, {"a/x": 0},
            id="but all of it when too little would be left"),
        pytest.param(
            [holds("a/x", 2), holds("a/y", 2, priority=9), wants("b/a", 3, priority=1)], {}, {},
            id="nobody gives way when it is not enough"),
        pytest.param(
            [holds("a/x", 4), *(wants(f"b/{n}", 2, priority=1) for n in "ab")], {}, {"a/x": 0}, id="one may give way to two"),
        pytest.param(
            [holds("a/x", 2), holds("a/y", 2), *(wants(f"b/{n}", 2, priority=1) for n in "ab")], {}, {"a/x": 0, "a/y": 0},
            id="two may give way to two"),
        pytest.param(
            [holds("a/x", 2), holds("b/y", 2), wants("b/a", 2, priority=1)], {"perNamespace": {"gpus": 2}}, {"b/y": 0},
            id="only its own namespace can make room in its share"),
    ],
)  # fmt: skip
def test_admit_makes_room(demands: list[Demand], spec: dict[str, Any], expected: dict[str, int]) -> None:
    found = verdicts(demands, with_gpus(4, **spec))
    before = {demand.key: demand.held for demand in demands if demand.held}
    assert {key: found[key].pods or 0 for key in before if (found[key].pods or 0) < before[key]} == expected
    told = {key for verdict in found.values() for key in verdict.preempts}
    assert told == set(expected), "those for whom they give way say whom they wait for"
    for key in expected:
        assert "makes room for b/" in found[key].message


def test_admit_counts_a_batch_in_the_one_bulkhead_that_it_names_though_two_would_take_its_namespace() -> None:
    takes_all: dict[str, Any] = {"namespaceSelector": {"matchLabels": {}}}
    small, large = with_gpus(1, **takes_all), a_bulkhead("large", capacity={"gpus": 8}, **takes_all)
    found = verdicts([holds("team/x"), wants("team/a"), wants("team/b", bulkhead="large")], small, large)
    assert (found["team/a"].reason, found["team/b"].admitted) == (Reason.QUOTA_EXCEEDED, True)
    assert found["team/a"].message == "needs 1 GPU, 1 of 1 used"


def test_admit_keeps_the_room_that_is_made() -> None:
    """What drains comes back bit by bit; smaller ones must not take it away."""
    draining = wants("a/x", 4, held=2, admitted=False, waited=600)
    urgent, small = wants("b/a", 4, priority=1), wants("c/s", 1)
    found = verdicts([draining, holds("a/y", 1), urgent, small], with_gpus(5))
    assert not found["b/a"].admitted
    assert (found["a/y"].admitted, found["c/s"].reason.value) == (True, "CapacityReserved")


def test_admit_gives_positions_in_the_order_in_which_they_will_start() -> None:
    """The namespaces take turns, from the one that holds the least."""
    demands = [holds("a/x"), *(wants(f"a/{n}", waited=100 - n) for n in range(3)), *(wants(f"b/{n}") for n in range(3))]
    found = verdicts(demands, with_gpus(1, capacity={"pods": 9}))
    order = sorted((v.position, key) for key, v in found.items() if v.position is not None)
    assert [key for _, key in order] == ["b/0", "a/0", "b/1", "a/1", "b/2", "a/2"]
    assert all(v.ahead == v.position - 1 for v in found.values() if v.position is not None)


def test_admit_estimates_when_each_may_start() -> None:
    ends = NOON + timedelta(minutes=5)
    demands = [
        holds("a/x", 2, ends=ends),
        wants("a/a", 2, waited=2, run_seconds=60.0),
        wants("a/b", 2, waited=1),
        wants("a/c"),
    ]
    found = verdicts(demands, with_gpus(2))
    starts = [found[f"a/{n}"].estimated_start for n in "abc"]
    assert starts == [ends, ends + timedelta(minutes=1), None], "nobody knows how long b takes"


def test_admit_warns_of_a_deadline_that_will_be_missed() -> None:
    late = wants("a/a", deadline=NOON + timedelta(minutes=6), run_seconds=120.0)
    found = verdicts([holds("a/x", ends=NOON + timedelta(minutes=5)), late], with_gpus(1))
    assert found["a/a"].message == "needs 1 GPU, 1 of 1 used; at this rate the deadline is missed"


def test_admit_does_not_queue_what_can_never_start() -> None:
    found = verdicts([wants("a/a", 9), holds("a/x", 4), wants("a/b", 4)], with_gpus(4))
    assert found["a/a"].position is None
    assert found["a/b"].position == 1


def test_admit_tries_one_batch_after_a_breaker_has_rested() -> None:
    history = [failed(f"team/{n}", -n) for n in (300, 290, 280)]
    demands = [
        *history,
        wants("team/a", 4, waited=9, at_least=1),
        wants("team/b"),
        wants("team/c", breakers=("model other",)),
    ]
    found = verdicts(demands, with_gpus(8))
    assert {key: v.pods for key, v in found.items() if v.admitted} == {"team/a": 1, "team/c": 1}
    assert found["team/b"].message == "model mock: team/a is trying whether it works again"


def test_admit_recognises_the_probe_that_an_earlier_process_has_sent() -> None:
    history = [failed(f"team/{n}", -n) for n in (300, 290, 280)]
    probe = holds("team/p", 4, held=1, at_least=1, started=NOON - timedelta(seconds=100))
    found = verdicts([*history, probe, wants("team/b")], with_gpus(8))
    assert (found["team/p"].pods, found["team/b"].reason.value) == (1, "BreakerOpen")


def test_admit_takes_back_what_a_batch_holds_that_an_open_breaker_keeps_from_getting_on() -> None:
    history = [failed(f"team/{n}", -n) for n in (30, 20, 10)]
    stuck, moving = holds("team/s", 2), holds("team/m", 2, moving=True)
    found = verdicts([*history, stuck, moving], with_gpus(8))
    assert (found["team/s"].reason.value, found["team/m"].admitted) == ("BreakerOpen", True)


def test_admit_once_every_verdict_is_written_gives_the_same() -> None:
    demands = [wants(f"{n % 3}/{n}", 1 + n % 4, at_least=1, waited=n) for n in range(30)]
    bulkhead = with_gpus(20)
    first = verdicts(demands, bulkhead)
    written = [
        replace(d, held=v.pods, admitted=True, started=NOON) if v.admitted and v.pods else d
        for d in demands
        for v in [first[d.key]]
    ]
    again = verdicts(written, bulkhead)
    assert {k: (v.admitted, v.pods) for k, v in again.items()} == {k: (v.admitted, v.pods) for k, v in first.items()}
