"""The parts of admission: what is read from a batch, limits over time, selectors, and a Bulkhead's status."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from admission_builders import MODEL, a_bulkhead, failed, holds, wants, with_gpus
from builders import NOON, BatchBuilder, a_batch
from headrace.api.batchstatus import Admission, ShardCounts
from headrace.api.bulkhead import NamespaceSelector
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.meta import Condition, ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.core.admission.book import Book
from headrace.core.admission.budgets import Window
from headrace.core.admission.demand import Demand, Surroundings, demand_of, held_pods, latest_start
from headrace.core.admission.selector import selects
from headrace.core.admission.status import bulkhead_status
from headrace.core.observed import Verdict

READY = a_batch().sharded(4).validated(100)
RUNNING = READY.admitted().with_status(admission=Admission(pods=3, time=NOON))
GPUS = {"resources": {"gpus": 2}}


def demand(batch: BatchBuilder, after: float = 0, **around: Any) -> Demand:
    return demand_of(batch.build(), Surroundings(NOON + timedelta(seconds=after), **around))


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        pytest.param(READY, {"wants": True, "pods": 4, "held": 0}, id="its input is read"),
        pytest.param(a_batch(), {"wants": False, "suspended": False}, id="its input is still being read"),
        pytest.param(READY.with_spec(suspend=True), {"wants": False, "suspended": True}, id="suspended"),
        pytest.param(READY.with_spec(cancel=True), {"wants": False, "suspended": False}, id="cancelled"),
        pytest.param(
            RUNNING.with_condition(ConditionType.FAILED, ConditionStatus.FALSE, Reason.DEADLINE_EXCEEDED),
            {"wants": False, "held": 3}, id="on its way to its end it still holds pods"),
        pytest.param(
            RUNNING.with_condition(ConditionType.COMPLETE, ConditionStatus.TRUE, Reason.RECORDS_PROCESSED),
            {"wants": False, "held": 0}, id="at its end it holds nothing"),
        pytest.param(RUNNING, {"wants": True, "held": 3, "admitted": True, "started": NOON}, id="running"),
        pytest.param(READY.admitted(), {"held": 4}, id="admitted before what is held was written down"),
        pytest.param(READY.with_spec(limits={"pods": 2}), {"pods": 2}, id="its own limit of pods"),
        pytest.param(READY.with_spec(limits={"gpus": 5}, **GPUS), {"pods": 2}, id="its own limit of GPUs"),
        pytest.param(READY.with_spec(limits={"gpus": 1}, **GPUS), {"pods": 0, "wants": False}, id="a limit below one pod's GPUs"),
        pytest.param(
            RUNNING.with_status(shards=ShardCounts(total=4, succeeded=2, failed=1)), {"pods": 1}, id="one shard is left"),
        pytest.param(READY.with_spec(parallelism=0), {"wants": False}, id="no pods are wanted"),
    ],
)  # fmt: skip
def test_demand_of(batch: BatchBuilder, expected: dict[str, Any]) -> None:
    found = demand(batch)
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("spec", "least"),
    [
        pytest.param({}, 1, id="one, when nothing is said"),
        pytest.param({"minParallelism": 3}, 3, id="as many as the spec says"),
        pytest.param({"minParallelism": 4, "parallelism": 4}, 4, id="all"),
    ],
)
def test_demand_of_needs_at_least(spec: dict[str, Any], least: int) -> None:
    assert demand(READY.with_spec(**spec)).shape.min_pods == least


def test_demand_of_needs_no_more_than_the_shards_that_are_left() -> None:
    last = READY.with_spec(minParallelism=3).with_status(shards=ShardCounts(total=4, succeeded=3))
    assert demand(last).shape.min_pods == 1


def test_demand_of_counts_endpoint_calls_by_the_batch_size() -> None:
    engine = {"name": "openai", "openai": {"endpoints": [{"name": "a", "url": "https://a.example"}]}}
    assert demand(READY.with_spec(engine=engine, batching={"maxBatchSize": 32})).shape.calls == 32
    assert demand(READY).shape.calls == 0


def test_demand_of_predicts_from_the_pace_of_its_model() -> None:
    moving = RUNNING.with_status(records_per_second="2.0", shards=ShardCounts(total=4, active=3))
    pace = demand(moving).pace
    assert pace == 1.5
    late = READY.with_spec(completionDeadlineSeconds=600)
    found = demand(late, paces={"model mock": pace})
    assert found.run_seconds == 100 * 1.5 / 4
    assert latest_start(found) == NOON + timedelta(seconds=600 - 37.5)


def test_demand_of_tells_what_a_failure_proves() -> None:
    failed = READY.with_condition(ConditionType.FAILED, ConditionStatus.TRUE, Reason.WORKER_FAILED)
    assert [(it.breaker, it.ok) for it in demand(failed, image="w").evidence] == [("model mock", False)]
    cancelled = READY.with_condition(ConditionType.FAILED, ConditionStatus.TRUE, Reason.CANCELLED)
    assert demand(cancelled, image="w").evidence == ()
    no_image = RUNNING.with_condition(ConditionType.PODS_READY, ConditionStatus.FALSE, Reason.IMAGE_PULL_FAILED)
    assert [(it.breaker, it.ok) for it in demand(no_image, image="w").evidence] == [("image w", False)]


def test_demand_of_is_the_same_before_its_status_is_written_and_when_it_is_read_back() -> None:
    """A status has whole seconds: a failure that is known by its moment would count twice, and so would a start."""
    moment = NOON + timedelta(seconds=0.75)
    cause = Condition(
        type=ConditionType.FAILED,
        status=ConditionStatus.TRUE,
        reason=Reason.WORKER_FAILED,
        message="it has",
        last_transition_time=moment,
    )
    batch = READY.with_status(conditions=(cause,), admission=Admission(pods=3, time=moment)).build()
    around = Surroundings(moment)
    before, after = demand_of(batch, around), demand_of(InferenceBatch.parse(batch.to_object()), around)
    assert before.evidence == after.evidence != ()
    assert before.started == after.started == NOON


def test_held_pods_of_a_finished_batch_are_none() -> None:
    done = RUNNING.with_condition(ConditionType.FAILED, ConditionStatus.TRUE, Reason.CANCELLED)
    assert held_pods(done.build()) == 0


@pytest.mark.parametrize(
    ("selector", "taken"),
    [
        pytest.param({}, True, id="nothing is asked"),
        pytest.param({"matchLabels": {"team": "a"}}, True, id="the label is as it must be"),
        pytest.param({"matchLabels": {"team": "b"}}, False, id="the label is another"),
        pytest.param({"matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "b"]}]}, True, id="in the list"),
        pytest.param({"matchExpressions": [{"key": "stage", "operator": "In", "values": ["a"]}]}, False, id="not there, so not in it"),
        pytest.param({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["a"]}]}, False, id="in the wrong list"),
        pytest.param({"matchExpressions": [{"key": "stage", "operator": "NotIn", "values": ["a"]}]}, True, id="not there, so not in that"),
        pytest.param({"matchExpressions": [{"key": "team", "operator": "Exists"}]}, True, id="there"),
        pytest.param({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}, False, id="there, and must not be"),
    ],
)  # fmt: skip
def test_selects(selector: dict[str, Any], taken: bool) -> None:
    assert selects(NamespaceSelector.parse(selector), {"team": "a"}) == taken


def test_window_forgets_what_has_moved_out_of_it() -> None:
    window = Window(2400)
    window.add(60, NOON)
    window.add(60, NOON + timedelta(seconds=1200))
    until = window.exhausted_until(100, NOON + timedelta(seconds=1300))
    assert until == NOON + timedelta(seconds=2500), "a part of the window leaves it as a whole"
    assert window.exhausted_until(100, until - timedelta(seconds=1)) == until
    assert window.exhausted_until(100, until) is None
    assert window.used == 60
    assert Window.of(2400, window.text()) == window
    assert Window.of(2400, "what:ever,7").used == 0


def running_with_budget(scope: str) -> tuple[Book, list[Demand]]:
    budget = {"name": "hour", "resource": "tokens", "limit": 100, "windowSeconds": 3600, "scope": scope}
    book, batches = Book(), [holds("a/x"), holds("b/y")]
    book.load(batches, [with_gpus(2, budgets=[budget])], NOON)
    return book, batches


@pytest.mark.parametrize(
    ("scope", "stopped"),
    [pytest.param("Bulkhead", {"a/x", "b/y"}, id="all"), pytest.param("Namespace", {"a/x"}, id="one namespace")],
)
def test_a_budget_that_is_used_up_stops(scope: str, stopped: set[str]) -> None:
    book, (first, second) = running_with_budget(scope)
    book.put(replace(first, tokens=99), NOON)
    assert book.take_changed() == set()
    book.put(replace(first, tokens=100), NOON)
    assert book.take_changed() == stopped
    verdict = book.look("a/x", NOON)
    assert (verdict.admitted, verdict.reason) == (False, Reason.BUDGET_EXHAUSTED)
    for it in (first, second):
        book.put(replace(it, tokens=100 if it is first else 0, held=0, admitted=False), NOON)
    later = NOON + timedelta(seconds=3600 + 150)
    book.tick(later)
    assert {key for key in ("a/x", "b/y") if book.look(key, later).admitted} == {"a/x", "b/y"}


def test_a_budget_goes_on_in_a_new_process() -> None:
    book, (first, _) = running_with_budget("Bulkhead")
    book.put(replace(first, tokens=100), NOON)
    bulkhead = with_gpus(2, budgets=[book.compartments["prod"].spec.budgets[0].to_object()])
    status = bulkhead_status(bulkhead, book.compartments["prod"], NOON)
    again = Book()
    again.load([wants("a/z")], [bulkhead.model_copy(update={"status": status})], NOON)
    assert again.look("a/z", NOON).reason == Reason.BUDGET_EXHAUSTED


def test_tokens_per_minute_hold_the_next_start_and_stop_nobody() -> None:
    book, first = Book(), holds("a/x")
    book.load([first], [with_gpus(3, capacity={"tokensPerMinute": 100})], NOON)
    book.put(replace(first, tokens=150), NOON)
    book.put(wants("a/z"), NOON)
    verdict = book.look("a/z", NOON)
    assert (verdict.reason, book.look("a/x", NOON).admitted) == (Reason.TOKENS_PER_MINUTE, True)
    assert verdict.message.startswith("150 of 100 tokens were used within a minute")
    later = NOON + timedelta(seconds=63)
    book.tick(later)
    assert book.look("a/z", later).admitted


def as_said(demand: Demand, verdict: Verdict) -> Demand:
    """The batch once its status says that it waits, and where."""
    return replace(demand, said=verdict.reason, position=verdict.position, start=verdict.estimated_start)


def test_whoever_waits_is_told_of_only_when_its_status_says_something_else() -> None:
    """Of a line of a hundred, the first few hear of every step, and the others only of larger ones."""
    line = [wants(f"a/{n:03}", waited=200 - n) for n in range(100)]
    book, now = Book(), NOON
    book.load([holds("b/x"), *line], [with_gpus(1)], now)
    for demand in line:
        book.put(as_said(demand, book.look(demand.key, now)), now)
    book.take_changed()
    told = []
    for gone in ("a/000", "a/001"):
        for _ in range(2):
            now += timedelta(seconds=6)
            book.tick(now)
            told.append(len(book.take_changed()))
        book.remove(gone, now)
    book.tick(now + timedelta(seconds=6))
    assert told == [0, 0, 9, 9], "what is not written yet is told again"
    assert len(book.take_changed()) == 18


@pytest.mark.parametrize(
    ("said", "told"),
    [
        pytest.param({"said": Reason.QUOTA_EXCEEDED, "position": 1}, False, id="what is true"),
        pytest.param({"said": Reason.BREAKER_OPEN, "position": 1}, True, id="another reason"),
        pytest.param({"said": Reason.QUOTA_EXCEEDED, "position": 2}, True, id="another position"),
        pytest.param({}, True, id="nothing"),
    ],
)
def test_a_status_is_looked_at_when_it_says(said: dict[str, Any], told: bool) -> None:
    book = Book()
    book.load([holds("b/x"), wants("a/a", **said)], [with_gpus(1)], NOON)
    book.tick(NOON)
    assert book.take_changed() == ({"a/a"} if told else set())


@pytest.mark.parametrize(
    ("later", "told"),
    [
        pytest.param(10, set[str](), id="by a trifle: nobody hears of it"),
        pytest.param(60, {"a/00", "a/01", "a/02"}, id="by a minute: only those hear of it who start soon"),
        pytest.param(3600, {f"a/{n:02}" for n in range(20)}, id="by an hour: all hear of it"),
    ],
)  # fmt: skip
def test_whoever_waits_is_told_when_the_start_is_put_off(later: int, told: set[str]) -> None:
    """A line of twenty, each of which takes two minutes; what runs takes longer than was thought, and nobody moves."""
    book, now = Book(), NOON
    runs = holds("b/x", ends=NOON + timedelta(minutes=4))
    line = [wants(f"a/{n:02}", waited=200 - n, run_seconds=120.0) for n in range(20)]
    book.load([runs, *line], [with_gpus(1)], now)
    for demand in line:
        book.put(as_said(demand, book.look(demand.key, now)), now)
    book.take_changed()
    book.put(replace(runs, ends=runs.ends + timedelta(seconds=later) if runs.ends else None), now)
    book.tick(now + timedelta(seconds=6))
    assert book.take_changed() == told


def test_starts_are_spread_over_the_minutes() -> None:
    book = Book()
    book.load([wants(f"a/{n}") for n in range(5)], [a_bulkhead(capacity={"startsPerMinute": 2})], NOON)
    started = []
    for second in range(0, 181, 10):
        moment = NOON + timedelta(seconds=second)
        book.tick(moment)
        started.append(sum(book.look(key, moment).admitted for key in book.take_changed()))
    assert started == [2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]


def test_what_somebody_was_told_counts_until_it_is_settled() -> None:
    """A verdict may be on its way into a status while it is taken back."""
    book, low, high = Book(), wants("a/low", 2), wants("b/high", 2, priority=9)
    book.load([low], [with_gpus(2)], NOON)
    assert book.look("a/low", NOON).pods == 2
    book.put(high, NOON)
    assert not book.look("b/high", NOON).admitted, "what low was told is not settled"
    assert not book.look("a/low", NOON).admitted, "it looks again, and nothing was written"
    assert book.look("b/high", NOON).admitted


def test_a_bulkhead_that_is_made_lets_in_who_has_waited_for_it() -> None:
    book = Book()
    book.load([wants("a/x")], [], NOON)
    assert book.look("a/x", NOON).reason == Reason.UNKNOWN_BULKHEAD
    book.put_bulkhead(with_gpus(1), NOON)
    assert book.take_changed() == {"a/x"}
    assert book.look("a/x", NOON).admitted
    book.remove_bulkhead("prod", NOON)
    book.put(wants("a/y"), NOON)
    assert book.look("a/x", NOON).admitted
    assert book.look("a/y", NOON).reason == Reason.UNKNOWN_BULKHEAD


def test_a_default_that_is_made_and_deleted_limits_as_long_as_it_is_there() -> None:
    book = Book()
    first, second = (wants(f"a/{n}", bulkhead="default") for n in "xy")
    book.put_bulkhead(a_bulkhead("default", capacity={"batches": 1}), NOON)
    book.put(first, NOON)
    book.put(second, NOON)
    assert [book.look(it.key, NOON).admitted for it in (first, second)] == [True, False]
    book.remove_bulkhead("default", NOON)
    assert book.look("a/y", NOON).admitted


def test_a_bulkhead_may_change_its_ordering_while_many_wait() -> None:
    book, line = Book(), [wants(f"a/{n}", deadline=NOON + timedelta(hours=n + 1), waited=10 * n) for n in range(3)]
    book.load([holds("b/x"), *line], [with_gpus(1, ordering=["Priority", "Deadline", "FairShare"])], NOON)
    assert [book.look(it.key, NOON).position for it in line] == [1, 2, 3]
    book.put_bulkhead(with_gpus(1, ordering=["Priority", "FairShare", "Age"]), NOON)
    later = NOON + timedelta(seconds=6)
    book.tick(later)
    assert [book.look(it.key, later).position for it in line] == [3, 2, 1]


def test_shape_is_the_same_object_wherever_it_is_equal() -> None:
    first, second = wants("a/x", 2, at_least=1).shape, wants("b/y", 3, at_least=1).shape
    assert first is second
    assert first is not wants("a/x", 2).shape
    assert wants("a/x", breakers=("model good",)).shape.size is wants("a/x", breakers=()).shape
    assert (first.grown.min_pods, first.grown.grows, first.grown.breakers) == (1, True, first.breakers)


def test_bulkhead_status() -> None:
    bulkhead = with_gpus(8, capacity={"pods": 9})
    book = Book()
    book.load([holds("a/x", 6), wants("a/y", 4, waited=90), wants("b/z", 3)], [bulkhead], NOON)
    status = bulkhead_status(bulkhead, book.compartments["prod"], NOON)
    assert (status.used.gpus, status.used.batches, status.waiting) == (6, 1, 2)
    assert status.oldest_wait_time == NOON - timedelta(seconds=90)
    assert [(it.name, it.gpus, it.waiting) for it in status.namespaces] == [("a", 6, 1), ("b", 0, 1)]
    assert status.summary.to_object() == {"gpus": "6/8", "pods": "6/9"}
    (saturated,) = status.conditions
    assert (saturated.reason, saturated.message) == ("QuotaExceeded", "2 batches wait; 6 of 8 GPU, 6 of 9 pods used")
    book.remove("a/y", NOON)
    book.remove("b/z", NOON)
    calm = bulkhead_status(bulkhead.model_copy(update={"status": status}), book.compartments["prod"], NOON)
    assert [(it.status, it.reason) for it in calm.conditions] == [("False", "CapacityAvailable")]


def test_bulkhead_status_tells_of_breakers_in_the_way_of_its_batches() -> None:
    book, bulkheads = Book(), [with_gpus(8), a_bulkhead("other")]
    history = [failed(f"team/{n}", -n) for n in (30, 20, 10)]
    book.load([*history, wants("team/a"), wants("team/b", bulkhead="other", breakers=("model good",))], bulkheads, NOON)
    (breaker,) = bulkhead_status(bulkheads[0], book.compartments["prod"], NOON).breakers
    assert (breaker.name, breaker.state, breaker.retry_time) == (MODEL, "Open", NOON + timedelta(seconds=50))
    assert bulkhead_status(bulkheads[1], book.compartments["other"], NOON).breakers == ()
    later = NOON + timedelta(seconds=51)
    book.tick(later)
    (breaker,) = bulkhead_status(bulkheads[0], book.compartments["prod"], later).breakers
    assert (breaker.state, breaker.probe) == ("HalfOpen", "team/a")
