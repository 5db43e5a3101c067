"""What holds of admission whatever is asked of it, and that it decides as a slow and simple one would."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from admission_builders import holds, wants, with_gpus
from builders import NOON
from headrace.api.reasons import Reason
from headrace.core.admission.admit import admit
from headrace.core.admission.book import Book
from headrace.core.admission.demand import Demand, latest_start
from headrace.core.admission.refresh import AGE

GPUS = 8
SIMPLE = with_gpus(GPUS, preemption="Never", reserveAfterSeconds=1_000_000)


@st.composite
def demand(draw: st.DrawFn, *, running: bool = False) -> Demand:
    """Anything that a batch may ask for."""
    namespace, number = draw(st.sampled_from("abc")), draw(st.integers(0, 999))
    pods = draw(st.integers(1, 5))
    fields: dict[str, Any] = {
        "gpus": draw(st.integers(0, 3)),
        "priority": draw(st.integers(0, 2)),
        "at_least": draw(st.integers(1, pods)),
        "deadline": draw(st.none() | st.integers(60, 9000).map(lambda s: NOON + timedelta(seconds=s))),
    }
    if running:
        return holds(f"{namespace}/run-{number}", pods, held=pods, **fields)
    return wants(f"{namespace}/wait-{number}", pods, waited=draw(st.integers(0, 500)), **fields)


WAITING = st.lists(demand(), max_size=12, unique_by=lambda it: it.key)
RUNNING = st.lists(demand(running=True), max_size=3, unique_by=lambda it: it.key)


def slowly(waiting: list[Demand], running: list[Demand]) -> dict[str, int]:
    """Who gets how many pods, by looking at everybody again and again. Who runs does not grow here."""
    pods = {it.key: it.pods for it in running}
    demands = {it.key: it for it in (*waiting, *running)}

    def free() -> int:
        return GPUS - sum(demands[key].shape.gpus * count for key, count in pods.items())

    def share(namespace: str) -> float:
        mine = [(demands[key].shape.gpus * n, n) for key, n in pods.items() if demands[key].namespace == namespace]
        in_all = sum(pods.values()) or 1
        return max(sum(gpus for gpus, _ in mine) / GPUS, sum(n for _, n in mine) / in_all)

    while True:
        fitting = [
            it for it in waiting if it.key not in pods
            and (not it.shape.gpus or it.shape.min_pods * it.shape.gpus <= free())
        ]  # fmt: skip
        if not fitting:
            return pods
        first = min(fitting, key=lambda it: (-it.priority, share(it.namespace), latest_start(it), it.created, it.key))
        pods[first.key] = min(first.pods, free() // first.shape.gpus) if first.shape.gpus else first.pods


@settings(max_examples=200, deadline=None)
@given(WAITING, RUNNING)
def test_admit_decides_as_a_slow_one_would(waiting: list[Demand], running: list[Demand]) -> None:
    found = admit(waiting, running, [SIMPLE], NOON)
    admitted = {key: verdict.pods for key, verdict in found.items() if verdict.admitted}
    slow = slowly(waiting, running)
    assert admitted.keys() == slow.keys()
    grown = {key for key, pods in admitted.items() if pods != slow[key]}
    assert all((admitted[key] or 0) > slow[key] for key in grown), (
        "who got less than all may have grown, when there was room"
    )


@settings(max_examples=200, deadline=None)
@given(WAITING, RUNNING, st.sampled_from(["LowerPriority", "Never"]), st.integers(1, 600))
def test_admit_keeps_within_its_limits(
    waiting: list[Demand], running: list[Demand], preemption: str, patience: int
) -> None:
    bulkhead = with_gpus(GPUS, preemption=preemption, reserveAfterSeconds=patience)
    found = admit(waiting, running, [bulkhead], NOON)
    before = sum(it.held * it.shape.gpus for it in running)
    after = sum(max(found[it.key].pods or 0, it.held) * it.shape.gpus for it in (*waiting, *running))
    assert after <= max(GPUS, before)
    for it in waiting:
        verdict = found[it.key]
        assert verdict.admitted == ((verdict.pods or 0) >= it.shape.min_pods)
        assert verdict.message
        if not verdict.admitted and verdict.reason == Reason.QUOTA_EXCEEDED:
            assert it.shape.min_pods * it.shape.gpus > GPUS - after
    positions = sorted(v.position for v in found.values() if v.position is not None)
    assert positions == list(range(1, len(positions) + 1))
    kept = [verdict for verdict in found.values() if verdict.reason == Reason.CAPACITY_RESERVED]
    entitled = [it for it in waiting if not found[it.key].admitted and it.since <= NOON - timedelta(seconds=patience)]
    assert not kept or entitled or any(verdict.preempts for verdict in found.values())


EVENTS = st.lists(
    st.tuples(st.sampled_from(["submit", "write", "look", "end", "suspend", "tick", "forget"]), st.integers(0, 11)),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(WAITING.filter(lambda found: len(found) > 3), EVENTS)
def test_a_book_agrees_with_admit_whatever_has_happened(demands: list[Demand], events: list[tuple[str, int]]) -> None:
    """Event by event it never gives out too much; and once all that it says is written, `admit` says the same of the statuses."""
    bulkhead = with_gpus(GPUS)
    book, known, now = Book(), dict[str, Demand](), NOON
    book.put_bulkhead(bulkhead, now)
    for what, number in events:
        it = demands[number % len(demands)]
        now += timedelta(seconds=1)
        if what == "forget":  # the process dies
            book = Book()
            book.load(known.values(), [bulkhead], now)
        else:
            happen(book, known, what, it, now)
        assert held(known) <= GPUS
    for _ in range(6):  # who gives way gives others room, who may give way to others in turn
        for key in known:
            known[key] = written(book, known[key], now)
            book.put(known[key], now)
    now += AGE
    book.tick(now)
    said = {key: book.look(key, now) for key in known}
    assert dict(admit(known.values(), (), [bulkhead], now)) == said, "word for word, positions and estimates too"


def happen(book: Book, known: dict[str, Demand], what: str, it: Demand, now: datetime) -> None:
    """One event."""
    match what:
        case "submit" if it.key not in known:
            known[it.key] = it
            book.put(it, now)
        case "look":
            book.look(it.key, now)
        case "write" if it.key in known:
            known[it.key] = written(book, known[it.key], now)
            book.put(known[it.key], now)
        case "end" if it.key in known:
            del known[it.key]
            book.remove(it.key, now)
        case "suspend" if it.key in known:
            known[it.key] = replace(known[it.key], wants=False, suspended=True)
            book.put(known[it.key], now)
        case "tick":
            book.tick(now)


def written(book: Book, it: Demand, now: datetime) -> Demand:
    """The batch once its verdict is in its status, and all that had to drain has drained."""
    verdict = book.look(it.key, now)
    pods = (verdict.pods or 0) if verdict.admitted else 0
    return replace(it, held=pods, admitted=verdict.admitted, started=NOON if pods else it.started)


def held(known: dict[str, Demand]) -> int:
    """GPUs that the statuses speak of."""
    return Counter({key: it.held * it.shape.gpus for key, it in known.items()}).total()
