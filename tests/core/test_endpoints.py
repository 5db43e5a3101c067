"""What a batch says of its endpoints, and when it puts its work away because none of them answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from admission_builders import a_bulkhead
from builders import NOON, BatchBuilder, a_batch, a_job, committed, live, look
from headrace.api.batchstatus import Admission
from headrace.api.endpointstatus import BreakerState, EndpointReport, EndpointStatus, Parking
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import Role, ShardReport, termination_message
from headrace.core.admission.book import Book
from headrace.core.admission.demand import Surroundings, demand_of, endpoints_breaker
from headrace.core.kueue.workload import KueueView
from headrace.core.observed import LET_IN, Observed, Verdict, WorkerReport
from headrace.core.reconcile import reconcile

OPEN, HALF_OPEN, CLOSED = BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED
IN = Verdict(admitted=True)
REFUSED = Verdict(admitted=False, reason=Reason.BREAKER_OPEN, message="endpoints: one will be tried at 12:01:00Z")
ENGINE = {
    "name": "openai",
    "openai": {
        "endpoints": [{"name": "east", "url": "http://east:8000"}, {"name": "west", "url": "http://west:8000/v1"}],
        "parkAfterSeconds": 120,
    },
}
RUNNING = (
    a_batch()
    .with_spec(engine=ENGINE)
    .sharded(2)
    .validated(200)
    .admitted()
    .with_status(admission=Admission(pods=2, time=NOON))
)
JOB = a_job(Role.RUN, active=2, parallelism=2)


def says(shard: int, *, final: bool = False, **states: tuple[BreakerState, int, int]) -> WorkerReport:
    """The word of a pod about endpoints: the state of each, requests sent and answered."""
    said = live(shard, 10, speed="0")
    endpoints = tuple(
        EndpointReport(name=name, state=state, sent=sent, answered=answered, in_flight=1, limit=8)
        for name, (state, sent, answered) in states.items()
    )
    return replace(said, report=said.report.model_copy(update={"endpoints": endpoints}), final=final)


def at(
    batch: BatchBuilder | InferenceBatch,
    after: float,
    *reports: WorkerReport,
    verdict: Verdict = IN,
    jobs: Iterable[Any] = (JOB,),
) -> Observed:
    return look(batch, jobs=jobs, reports=reports, after=after, verdict=verdict)


def then(batch: BatchBuilder | InferenceBatch, after: float, *reports: WorkerReport, **more: Any) -> InferenceBatch:
    """The batch with the status that it gets at that look."""
    observed = at(batch, after, *reports, **more)
    return observed.batch.model_copy(update={"status": reconcile(observed).status})


def available(batch: InferenceBatch) -> tuple[str, str]:
    found = batch.status.condition(ConditionType.ENDPOINTS_AVAILABLE)
    return (found.status.value, str(found.reason)) if found is not None else ("", "")


DOWN = says(0, east=(OPEN, 9, 3), west=(OPEN, 7, 2))
UP = says(0, east=(CLOSED, 30, 29), west=(CLOSED, 10, 10))


def test_status_has_each_endpoint_with_its_state_and_its_share() -> None:
    batch = then(RUNNING, 5, UP, says(1, east=(OPEN, 10, 4), west=(CLOSED, 50, 49)))
    found = {
        it.name: (it.state, it.requests, it.share_percent, it.in_flight, it.limit) for it in batch.status.endpoints
    }
    assert found == {"east": (CLOSED, 40, 40, 2, 16), "west": (CLOSED, 60, 60, 2, 16)}
    assert available(batch) == ("True", "EndpointsAnswer")
    later = then(batch, 10, says(0, east=(OPEN, 40, 29), west=(CLOSED, 60, 60)))
    assert available(later) == ("True", "SomeBreakersOpen")
    assert [it.state for it in later.status.endpoints] == [OPEN, CLOSED]
    assert later.status.endpoints[0].last_transition_time == NOON + timedelta(seconds=10)
    assert then(later, 15).status.endpoints == later.status.endpoints, "as it was seen last"


def test_status_of_a_batch_whose_engine_asks_nobody_says_nothing_of_endpoints() -> None:
    batch = then(a_batch().validated().admitted(), 5, live(0, 10))
    assert (batch.status.endpoints, available(batch)) == ((), ("", ""))


def test_events_tell_of_each_change_of_a_breaker() -> None:
    batch, told = then(RUNNING, 0, UP), []
    for after, state in enumerate((OPEN, HALF_OPEN, CLOSED, CLOSED), 1):
        observed = at(batch, after, says(0, east=(state, 40, 30), west=(CLOSED, 10, 10)))
        plan = reconcile(observed)
        told += [(event.reason, event.type) for event in plan.events if event.reason.startswith("Endpoint")]
        batch = batch.model_copy(update={"status": plan.status})
    assert told == [
        ("EndpointOpen", "Warning"),
        ("EndpointHalfOpen", "Normal"),
        ("EndpointsAnswer", "Normal"),
        ("EndpointClosed", "Normal"),
    ]


def test_batch_that_nobody_answers_waits_and_is_parked_after_so_long() -> None:
    waits = then(then(RUNNING, 0, UP), 10, DOWN)
    assert (available(waits), waits.status.summary.state) == (("False", "BreakerOpen"), "BreakerOpen")
    condition = waits.status.condition(ConditionType.ENDPOINTS_AVAILABLE)
    assert condition is not None
    assert "east, west" in condition.message
    assert "12:02:10Z" in condition.message
    almost = then(waits, 129, DOWN)
    assert almost.status.parking is None
    parked = then(almost, 130, DOWN)
    assert parked.status.parking == Parking(time=NOON + timedelta(seconds=130))
    assert available(parked) == ("False", "Parked")
    resting = at(parked, 131, DOWN, verdict=REFUSED)
    (job,) = (child for child in reconcile(resting).children or () if child["kind"] == "Job")
    assert job["spec"]["suspend"] is True
    gone = a_job(Role.RUN, suspended=True)
    rests = then(then(parked, 131, DOWN, verdict=REFUSED), 140, verdict=REFUSED, jobs=(gone,))
    assert (rests.status.summary.state, available(rests)) == ("Parked", ("False", "Parked"))
    assert rests.status.records.failed == 0


@pytest.mark.parametrize(
    "report",
    [
        pytest.param(says(0, east=(OPEN, 9, 3), west=(CLOSED, 1, 0)), id="one was asked and has not answered yet"),
        pytest.param(says(0, east=(OPEN, 9, 3)), id="one was never asked"),
        pytest.param(says(0, east=(OPEN, 9, 3), west=(OPEN, 0, 0)), id="of one a pod has heard from others alone"),
        pytest.param(says(0, final=True, east=(OPEN, 9, 3), west=(OPEN, 1, 0)), id="the pod has ended"),
    ],
)
def test_batch_of_which_it_is_not_known_whether_anybody_answers_is_not_parked(report: WorkerReport) -> None:
    assert available(then(RUNNING, 500, report)) == ("", "")


def test_batch_that_was_not_at_work_meanwhile_has_its_whole_time_again() -> None:
    waits = then(then(RUNNING, 0, UP), 10, DOWN)
    again = waits.model_copy(
        update={
            "status": waits.status.model_copy(update={"admission": Admission(pods=2, time=NOON + timedelta(hours=1))})
        }
    )
    assert then(again, 3610, DOWN).status.parking is None
    assert then(again, 3720, DOWN).status.parking is not None


def parked(times: int = 1, after: float = 130) -> InferenceBatch:
    """Parked so many seconds after noon, and at rest."""
    waits = then(then(RUNNING, 0, UP), 10, DOWN)
    moment = Parking(time=NOON + timedelta(seconds=after), times=times)
    batch = waits.model_copy(update={"status": waits.status.model_copy(update={"parking": moment})})
    return then(batch, after + 1, verdict=REFUSED, jobs=(a_job(Role.RUN, suspended=True),))


@pytest.mark.parametrize(
    ("report", "expected", "times"),
    [
        pytest.param(None, ("Unknown", "Probing"), 1, id="its pod is about to begin"),
        pytest.param(says(0, east=(HALF_OPEN, 1, 0), west=(OPEN, 0, 0)), ("Unknown", "Probing"), 1, id="under way"),
        pytest.param(says(0, east=(OPEN, 1, 0), west=(OPEN, 1, 0)), ("False", "Parked"), 2, id="nobody has answered"),
        pytest.param(
            says(0, east=(OPEN, 1, 0), west=(HALF_OPEN, 1, 0)), ("Unknown", "Probing"), 1, id="one may answer yet"
        ),
        pytest.param(says(0, east=(OPEN, 1, 0), west=(CLOSED, 1, 1)), ("True", "SomeBreakersOpen"), 0, id="one has"),
    ],
)
def test_batch_that_is_let_go_again_is_judged_by_its_probe(
    report: WorkerReport | None, expected: tuple[str, str], times: int
) -> None:
    batch = then(parked(), 200, *([report] if report is not None else []), jobs=(a_job(Role.RUN, active=1),))
    assert available(batch) == expected
    assert (batch.status.parking.times if batch.status.parking is not None else 0) == times


def done(shard: int) -> WorkerReport:
    """The last word of a pod that was answered by one of two endpoints."""
    last, said = committed(shard, 100), says(shard, east=(OPEN, 1, 0), west=(CLOSED, 100, 100)).report
    assert isinstance(said, ShardReport)
    return replace(last, report=last.report.model_copy(update={"endpoints": said.endpoints}))


def test_batch_whose_probe_has_ended_before_it_was_asked_goes_on() -> None:
    goes_on = then(parked(), 200, done(0))
    assert (available(goes_on), goes_on.status.parking) == (("True", "SomeBreakersOpen"), None)
    assert [it.state for it in goes_on.status.endpoints] == [OPEN, CLOSED]
    down_again = then(then(goes_on, 210, done(0), says(1, east=(OPEN, 9, 0), west=(OPEN, 9, 3))), 220, done(0))
    assert available(down_again) == ("False", "BreakerOpen"), "what a shard said that was done before is history"


def test_batch_that_is_complete_is_not_parked_any_more() -> None:
    complete = then(parked(), 200, done(0), done(1), jobs=(a_job(Role.RUN),))
    assert (complete.status.summary.state, complete.status.parking) == ("Complete", None)
    assert available(complete) == ("True", "SomeBreakersOpen")


@pytest.mark.parametrize(("times", "rest"), [(1, 60), (2, 120), (4, 480), (9, 1800)])
def test_batch_where_no_bulkhead_decides_rests_by_itself_and_longer_each_time(times: int, rest: int) -> None:
    """On a laptop, and in a queue of Kueue, whose Workload is made inactive meanwhile."""
    batch, gone = parked(times), (a_job(Role.RUN, suspended=True),)
    for after, suspended in ((130 + rest - 1, True), (130 + rest, False)):
        here = at(batch, after, verdict=LET_IN, jobs=gone)
        (job,) = (child for child in reconcile(here).children or () if child["kind"] == "Job")
        # The Job is released once the status says that its pods are held.
        held = then(batch, after, verdict=LET_IN, jobs=gone).status.admission
        assert (job["spec"]["suspend"], held is not None and held.pods == 0) == (True, suspended)
        queued = replace(here, kueue=KueueView(installed=True))
        assert reconcile(queued).status.summary.state == ("Parked" if suspended else "Starting")


# In a cluster the breakers of admission decide who tries again


def demand(batch: InferenceBatch, after: float) -> Any:
    return demand_of(batch, Surroundings(NOON + timedelta(seconds=after)))


def named(batch: InferenceBatch, name: str) -> InferenceBatch:
    return batch.model_copy(update={"metadata": batch.metadata.model_copy(update={"name": name})})


def moment(after: float) -> Any:
    return NOON + timedelta(seconds=after)


def test_one_batch_that_is_parked_opens_the_breaker_of_its_endpoints_for_all() -> None:
    """Who asks the same endpoints and gets nothing done gives its pods back; one of them tries again with one pod, and then all go on."""
    book = Book()
    book.put_bulkhead(a_bulkhead("default"), moment(0))
    first, second = RUNNING.build(), named(RUNNING.build(), "second")
    for batch in (first, second):
        book.put(demand(batch, 0), moment(0))
        assert book.look(batch.key, moment(0)).pods == 2
        book.settle(batch.key, moment(0))
    away = then(then(first, 10, DOWN), 130, DOWN)
    book.put(demand(away, 130), moment(130))
    said = {batch.key: book.look(batch.key, moment(130)) for batch in (away, second)}
    assert {key: (it.admitted, it.reason) for key, it in said.items()} == {
        "default/reviews": (False, Reason.BREAKER_OPEN),
        "default/second": (False, Reason.BREAKER_OPEN),
    }
    drained = {
        batch.key: batch.model_copy(update={"status": batch.status.model_copy(update={"admission": Admission()})})
        for batch in (away, second)
    }
    for batch in drained.values():
        book.put(demand(batch, 140), moment(140))
        book.settle(batch.key, moment(140))
    waits = book.look(second.key, moment(150))
    assert (
        waits.message
        == "endpoints http://east:8000, http://west:8000: no batch is answered; one will be tried at 12:03:10Z"
    )
    book.tick(moment(190))
    let = [key for key in drained if book.look(key, moment(190)).admitted]
    assert len(let) == 1
    assert book.look(let[0], moment(190)).pods == 1, "as few pods as it may have"
    probe = drained[let[0]]
    status = probe.status.model_copy(
        update={"parking": None, "records_per_second": "1.0", "admission": Admission(pods=1, time=moment(190))}
    )
    book.put(demand(probe.model_copy(update={"status": status}), 200), moment(200))
    assert all(book.look(key, moment(201)).admitted for key in drained)


def test_breaker_of_endpoints_is_that_of_all_who_ask_the_same_ones() -> None:
    def name(*urls: str, **settings: Any) -> str | None:
        endpoints = [{"name": f"e{n}", "url": url, "tier": n} for n, url in enumerate(urls)]
        return endpoints_breaker(
            RUNNING.with_spec(engine={"name": "openai", "openai": {"endpoints": endpoints, **settings}}).build()
        )

    assert name("http://b/v1", "http://a") == name("http://a/", "http://b") == "endpoints http://a, http://b"
    assert name("http://a", "http://b", allowDegraded=False) == "endpoints http://a"
    many = [f"http://e{n}.example/{'x' * 60}" for n in range(9)]
    assert name(*many) != name(*many[:-1])
    assert len(name(*many) or "") < 600
    assert endpoints_breaker(a_batch().build()) is None


def test_endpoints_are_left_out_of_a_termination_message_that_would_be_too_long() -> None:
    endpoints = tuple(EndpointReport(name=f"endpoint-{n}" * 4, sent=10**6, answered=10**6) for n in range(64))
    few = ShardReport(shard=0, endpoints=endpoints[:8])
    assert ShardReport.model_validate_json(termination_message(few)) == few
    told = ShardReport.model_validate_json(termination_message(ShardReport(shard=0, endpoints=endpoints)))
    assert told == ShardReport(shard=0)


def test_status_has_room_for_all_endpoints_that_a_batch_may_have() -> None:
    status = {"endpoints": [EndpointStatus(name=f"e{n}").to_object() for n in range(64)]}
    assert len(InferenceBatch.parse({**RUNNING.build().to_object(), "status": status}).status.endpoints) == 64
