"""The life of a batch, as a table: what was observed, and what follows."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from builders import NOON, BatchBuilder, a_batch, a_job, committed, finalized, gave_up, live, look, planned, refused
from headrace.api.batchstatus import Admission, InferenceBatchStatus, RecordProblem, ShardCounts
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.meta import ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import ExitCode, Role, WorkerConfig, shard_at
from headrace.core import edits
from headrace.core.observed import Installation, JobSnapshot, Observed, PodSnapshot, Verdict
from headrace.core.plan import Plan
from headrace.core.reconcile import reconcile

RUNNING = a_batch().sharded(2).validated(200).admitted()
RUN = a_job(Role.RUN, active=2)
PLANNED = a_job(Role.PLAN, complete=True)


def children(plan: Plan) -> dict[str, bool]:
    """Names of the desired children; for Jobs, whether they are suspended."""
    assert plan.children is not None
    return {c["metadata"]["name"]: c.get("spec", {}).get("suspend", False) for c in plan.children}


def conditions(plan: Plan) -> dict[str, tuple[str, str]]:
    """Status and reason of each condition."""
    return {c.type: (c.status.value, c.reason) for c in plan.status.conditions}


def with_status(batch: BatchBuilder, status: InferenceBatchStatus) -> InferenceBatch:
    """The batch with that status."""
    return batch.build().model_copy(update={"status": status})


def suspended(batch: BatchBuilder) -> BatchBuilder:
    return batch.with_spec(suspend=True)


BAD = RecordProblem(line=7, code="invalid_json", message="column 3: unexpected end")
FAILED_RUN = a_job(Role.RUN, failed=True)
LOST_SHARD = a_job(Role.RUN, failed=True, failed_indexes=frozenset({1}), succeeded_indexes=frozenset({0}))
DONE = a_job(Role.RUN, complete=True, succeeded_indexes=frozenset({0, 1}))
CANCELLED = RUNNING.with_spec(cancel=True)


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(look(a_batch()), {"reviews-plan": False}, id="a new batch has its input read"),
        pytest.param(
            look(a_batch(), jobs=[PLANNED], reports=[planned()]),
            {"reviews-plan": False},
            id="a plan that has ended is kept, not run again",
        ),
        pytest.param(look(a_batch().validated()), {}, id="no GPU is asked for before the status says admitted"),
        pytest.param(look(RUNNING), {"reviews-run": False}, id="an admitted batch runs"),
        pytest.param(
            look(RUNNING, verdict=Verdict(admitted=False, reason=Reason.QUOTA_EXCEEDED, message="2 of 2 GPUs in use")),
            {},
            id="a verdict taken back holds the start",
        ),
        pytest.param(
            look(
                RUNNING,
                jobs=[RUN],
                verdict=Verdict(admitted=False, reason=Reason.QUOTA_EXCEEDED, message="preempted"),
            ),
            {"reviews-run": True},
            id="a preempted batch drains",
        ),
        pytest.param(look(suspended(RUNNING)), {}, id="a suspended batch does not start"),
        pytest.param(
            look(suspended(RUNNING), jobs=[RUN]), {"reviews-run": True}, id="a running batch that is suspended drains"
        ),
        pytest.param(
            look(CANCELLED, jobs=[RUN]),
            {"reviews-run": True},
            id="a cancelled batch drains before its books are closed",
        ),
        pytest.param(
            look(CANCELLED, jobs=[a_job(Role.RUN, suspended=True)]),
            {"reviews-run": True, "reviews-finalize": False},
            id="a drained one has its books closed",
        ),
        pytest.param(look(CANCELLED), {"reviews-finalize": False}, id="one that never ran has its books closed too"),
        pytest.param(
            look(a_batch().with_spec(cancel=True), jobs=[a_job(Role.PLAN, active=1)]),
            {},
            id="a batch cancelled while it is read loses its plan Job",
        ),
        pytest.param(
            look(RUNNING, jobs=[DONE], reports=[committed(0, 100)]),
            {"reviews-run": True, "reviews-finalize": False},
            id="a lost last word is recounted",
        ),
        pytest.param(
            look(RUNNING, jobs=[LOST_SHARD]),
            {"reviews-run": True, "reviews-finalize": False},
            id="a shard that cannot be done is closed with error lines",
        ),
        pytest.param(
            look(RUNNING.with_meta(annotations={"headrace.dev/retry": "2"}).with_status(retries=2)),
            {"reviews-run-r2": False},
            id="each retry has Jobs of its own",
        ),
    ],
)
def test_reconcile_children(observed: Observed, expected: dict[str, bool]) -> None:
    assert children(reconcile(observed)) == expected


def failing(reason: str) -> dict[str, tuple[str, str]]:
    return {"Failed": ("True", reason)}


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(look(a_batch()), {"InputValidated": ("Unknown", "Planning")}, id="a new batch is being planned"),
        pytest.param(
            look(a_batch(), jobs=[PLANNED], reports=[planned()]),
            {"InputValidated": ("True", "InputValid")},
            id="good input",
        ),
        pytest.param(
            look(a_batch(), jobs=[PLANNED], reports=[refused(BAD)]),
            {"InputValidated": ("False", "InputInvalid"), "Failed": ("True", "InputInvalid")},
            id="bad input ends the batch",
        ),
        pytest.param(look(a_batch().validated()), {"Admitted": ("True", "Admitted")}, id="nothing stands in the way"),
        pytest.param(
            look(
                a_batch().validated(),
                verdict=Verdict(
                    admitted=False, reason=Reason.QUOTA_EXCEEDED, message="8 of 8 GPUs in use", position=3, ahead=2
                ),
            ),
            {"Admitted": ("False", "QuotaExceeded")},
            id="a waiting batch says why",
        ),
        pytest.param(look(suspended(RUNNING), jobs=[RUN]), {"Suspended": ("False", "Draining")}, id="draining"),
        pytest.param(look(suspended(RUNNING)), {"Suspended": ("True", "SuspendedBySpec")}, id="suspended"),
        pytest.param(
            look(RUNNING.with_condition(ConditionType.SUSPENDED, ConditionStatus.TRUE, Reason.SUSPENDED)),
            {"Suspended": ("False", "Resumed")},
            id="resumed",
        ),
        pytest.param(
            look(RUNNING, jobs=[DONE], reports=[committed(0, 100), committed(1, 100)]),
            {"Complete": ("True", "RecordsProcessed")},
            id="complete",
        ),
        pytest.param(
            look(RUNNING, jobs=[DONE], reports=[committed(0, 100), committed(1, 97, 3)]),
            {"Complete": ("True", "RecordsProcessedWithErrors")},
            id="complete with errors",
        ),
        pytest.param(
            look(RUNNING, jobs=[DONE], reports=[finalized(198, 2)]),
            {"Complete": ("True", "RecordsProcessedWithErrors")},
            id="complete by recount",
        ),
        pytest.param(
            look(CANCELLED, jobs=[DONE], reports=[committed(0, 100), committed(1, 100)]),
            {"Complete": ("True", "RecordsProcessed")},
            id="a cancel that comes after the last record changes nothing",
        ),
        pytest.param(look(CANCELLED, jobs=[RUN]), {"Failed": ("False", "Cancelled")}, id="cancelling"),
        pytest.param(
            look(CANCELLED, jobs=[a_job(Role.FINALIZE, complete=True)], reports=[finalized(50, 150)]),
            failing("Cancelled"),
            id="cancelled",
        ),
        pytest.param(
            look(a_batch().with_spec(cancel=True)), failing("Cancelled"), id="cancelled before anything was read"
        ),
        pytest.param(
            look(RUNNING.with_spec(completionDeadlineSeconds=60), jobs=[RUN], after=60),
            {"Failed": ("False", "DeadlineExceeded")},
            id="the deadline passes",
        ),
        pytest.param(
            look(RUNNING.with_spec(completionDeadlineSeconds=60), jobs=[RUN], after=59),
            {"Admitted": ("True", "Admitted")},
            id="a second before it",
        ),
        pytest.param(
            look(suspended(RUNNING).with_spec(completionDeadlineSeconds=60), after=61),
            {"Failed": ("False", "DeadlineExceeded")},
            id="suspending gains no time",
        ),
        pytest.param(
            look(RUNNING.with_spec(failurePolicy={"maxFailedRecords": "1%"}), jobs=[RUN], reports=[live(0, 10, 3)]),
            {"Failed": ("False", "TooManyFailedRecords")},
            id="three of 200 are more than 1%",
        ),
        pytest.param(
            look(RUNNING.with_spec(failurePolicy={"maxFailedRecords": "1%"}), jobs=[RUN], reports=[live(0, 10, 2)]),
            {"Admitted": ("True", "Admitted")},
            id="two of 200 are 1%",
        ),
        pytest.param(
            look(
                RUNNING.with_spec(failurePolicy={"maxFailedRecords": 0}),
                jobs=[DONE],
                reports=[committed(0, 100), committed(1, 99, 1)],
            ),
            failing("TooManyFailedRecords"),
            id="too many failed, seen only at the end",
        ),
        pytest.param(
            look(
                RUNNING.with_spec(failurePolicy={"maxFailedRecords": 1}),
                jobs=[FAILED_RUN],
                reports=[gave_up(Role.RUN, "TooManyFailedRecords", "2 failed")],
            ),
            {"Failed": ("False", "TooManyFailedRecords")},
            id="a worker saw too many failed before we did",
        ),
        pytest.param(
            look(RUNNING, jobs=[FAILED_RUN], reports=[gave_up(Role.RUN, "ModelNotFound", "no such model")]),
            failing("WorkerFailed"),
            id="no model",
        ),
        pytest.param(
            look(
                a_batch(),
                jobs=[a_job(Role.PLAN, failed=True)],
                reports=[gave_up(Role.PLAN, "InputNotFound", "no such file")],
            ),
            {"InputValidated": ("False", "PlanFailed"), "Failed": ("True", "WorkerFailed")},
            id="no input",
        ),
        pytest.param(
            look(a_batch(), jobs=[a_job(Role.PLAN, failed=True)]),
            failing("WorkerFailed"),
            id="a plan that died without a word",
        ),
        pytest.param(
            look(RUNNING, jobs=[LOST_SHARD, a_job(Role.FINALIZE, complete=True)], reports=[finalized(100, 100)]),
            failing("ShardFailed"),
            id="a lost shard",
        ),
        pytest.param(
            look(
                CANCELLED,
                jobs=[a_job(Role.FINALIZE, failed=True)],
                reports=[gave_up(Role.FINALIZE, "OutputFull", "no room")],
            ),
            failing("FinalizeFailed"),
            id="the books cannot be closed",
        ),
        pytest.param(
            look(
                CANCELLED.with_spec(completionDeadlineSeconds=1),
                jobs=[a_job(Role.FINALIZE, stop_reason="DeadlineExceeded")],
                after=5,
            ),
            {"Failed": ("False", "DeadlineExceeded")},
            id="an end that has begun does not change its reason",
        ),
    ],
)
def test_reconcile_conditions(observed: Observed, expected: dict[str, tuple[str, str]]) -> None:
    found = conditions(reconcile(observed))
    assert {kind: found.get(kind) for kind in expected} == expected
    both = {found.get("Complete", ("",))[0], found.get("Failed", ("",))[0]}
    assert len(both) == 2 or both == {""}, "a batch is never complete and failed at once"


def test_reconcile_failed_worker_keeps_its_work_for_a_retry() -> None:
    observed = look(RUNNING, jobs=[FAILED_RUN], reports=[gave_up(Role.RUN, "ModelNotFound", "no such model")])
    failed = reconcile(observed)
    assert failed.children is None
    assert "retry" in (failed.status.condition(ConditionType.FAILED) or pytest.fail("no condition")).message

    asked = (
        RUNNING.with_meta(annotations={"headrace.dev/retry": "1"}).build().model_copy(update={"status": failed.status})
    )
    begun = reconcile(look(asked, jobs=[FAILED_RUN]))
    assert children(begun) == {}, "the Jobs of the last round go"
    assert conditions(begun)["Failed"] == ("False", "Retrying")
    assert begun.look_again_after == timedelta(0)

    again = reconcile(look(asked.model_copy(update={"status": begun.status})))
    assert children(again) == {"reviews-run-r1": False}


def test_a_retry_of_a_batch_that_is_complete_with_errors_runs_and_counts_the_shards_with_errors_alone() -> None:
    done = reconcile(look(RUNNING, jobs=[DONE], reports=[committed(0, 100), committed(1, 70, failed=30)])).status
    assert done.is_true(ConditionType.COMPLETE)
    asked = RUNNING.with_meta(annotations=dict(edits.retry(with_status(RUNNING, done)).annotations))
    begun = reconcile(look(with_status(asked, done), jobs=[DONE], after=60))
    assert conditions(begun)["Complete"] == conditions(begun)["Failed"] == ("False", "Retrying")
    assert children(begun) == {}, "the Jobs of the last round go"
    records = begun.status.records
    assert (records.succeeded, records.failed, records.pending) == (170, 0, 30)
    assert (begun.status.shards.total, begun.status.shards.succeeded) == (2, 1)

    (job,) = reconcile(look(with_status(asked, begun.status), after=60)).children or ()
    assert (job["metadata"]["name"], job["spec"]["completions"]) == ("reviews-run-r1", 1)
    told = WorkerConfig.parse(json.loads(job["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"]))
    assert [shard_at(0, told.retried_shards)] == [1], "the only index of the Job stands for the second shard"

    run = replace(RUN, name="reviews-run-r1", round=1)
    half = reconcile(look(with_status(asked, begun.status), jobs=[run], reports=[live(1, 75)], after=61)).status
    assert half.records.succeeded == 175
    assert half.shards.succeeded == 1
    finished = a_job(Role.RUN, name="reviews-run-r1", round=1, complete=True, succeeded_indexes=frozenset({0}))
    end = reconcile(
        look(with_status(asked, half), jobs=[finished], reports=[committed(1, 95, failed=5)], after=90)
    ).status
    assert end.shards.succeeded == 2
    assert end.is_true(ConditionType.COMPLETE)
    assert (end.records.succeeded, end.records.failed, end.records.pending) == (195, 5, 0)
    assert end.completion_time == NOON + timedelta(seconds=90)


def test_a_retry_of_a_batch_that_has_lost_a_shard_runs_that_shard() -> None:
    reports = [committed(0, 100), gave_up(Role.RUN, "OutputDamaged", "it changed", ExitCode.SHARD_FAILED, shard=1)]
    closed = a_job(Role.FINALIZE, complete=True)
    lost = reconcile(look(RUNNING, jobs=[LOST_SHARD, closed], reports=[*reports, finalized(100, 100)])).status
    assert lost.is_true(ConditionType.FAILED)
    asked = RUNNING.with_meta(annotations={"headrace.dev/retry": "1"})
    begun = reconcile(look(with_status(asked, lost)))
    assert begun.status.retried_shards == "1"
    run = replace(
        LOST_SHARD, name="reviews-run-r1", round=1, failed_indexes=frozenset({0}), succeeded_indexes=frozenset()
    )
    again = reconcile(look(with_status(asked, begun.status), jobs=[run], reports=reports))
    assert conditions(again)["Failed"] == ("False", "ShardFailed"), "index 0 of that Job is shard 1"
    assert "shard 1: it changed" in again.status.condition(ConditionType.FAILED).message  # type: ignore[union-attr]


def test_a_batch_of_which_no_record_has_failed_is_not_retried() -> None:
    done = reconcile(look(RUNNING, jobs=[DONE], reports=[committed(0, 100), committed(1, 100)])).status
    with pytest.raises(edits.EditRefused, match="reviews is complete: there is nothing to retry"):
        edits.retry(with_status(RUNNING, done))
    asked = RUNNING.with_meta(annotations={"headrace.dev/retry": "1"})
    assert reconcile(look(with_status(asked, done))).status == done


def test_the_deadline_of_a_retry_counts_from_its_beginning() -> None:
    hurried = RUNNING.with_spec(completionDeadlineSeconds=600).with_meta(annotations={"headrace.dev/retry": "1"})
    late = hurried.with_condition(ConditionType.FAILED, ConditionStatus.TRUE, Reason.DEADLINE_EXCEEDED)
    begun = reconcile(look(late, after=3600)).status
    again = reconcile(look(with_status(hurried, begun), after=3601))
    assert again.status.deadline_time == NOON + timedelta(seconds=4200)
    assert children(again) == {"reviews-run-r1": False}


def test_reconcile_leaves_a_finished_batch_alone() -> None:
    done = reconcile(look(RUNNING, jobs=[DONE], reports=[committed(0, 100), committed(1, 100)]))
    later = look(RUNNING.build().model_copy(update={"status": done.status}), after=3600)
    again = reconcile(later)
    assert (again.status, again.children, again.events, again.look_again_after) == (done.status, None, (), None)


def test_reconcile_says_at_once_that_it_has_more_to_do() -> None:
    assert reconcile(look(a_batch(), jobs=[PLANNED], reports=[planned()])).look_again_after == timedelta(0)
    assert reconcile(look(a_batch().validated())).look_again_after == timedelta(0)
    assert reconcile(look(RUNNING, jobs=[RUN])).look_again_after is not None


def test_reconcile_looks_again_at_the_deadline() -> None:
    observed = look(RUNNING.with_spec(completionDeadlineSeconds=60), jobs=[RUN], after=58)
    assert reconcile(observed).look_again_after == timedelta(seconds=2)


def test_reconcile_emits_each_transition_once() -> None:
    first = reconcile(look(a_batch(), jobs=[PLANNED], reports=[planned(100, 1)]))
    assert [(e.reason, e.message) for e in first.events] == [
        ("InputValid", "100 records in 1 shards"),
        ("Admitted", "no limit stands in the way"),
    ]
    again = look(a_batch().build().model_copy(update={"status": first.status}), jobs=[PLANNED], reports=[planned()])
    assert "InputValid" not in {e.reason for e in reconcile(again).events}


def test_reconcile_warns_of_bad_input_with_the_first_line() -> None:
    plan = reconcile(look(a_batch(), jobs=[PLANNED], reports=[refused(BAD)]))
    assert {e.type for e in plan.events} == {"Warning"}
    assert "line 7: invalid_json: column 3" in plan.events[0].message
    assert plan.status.validation is not None
    assert plan.status.validation.errors == (BAD,)


@pytest.mark.parametrize(
    ("batch", "field"),
    [
        pytest.param(
            a_batch().with_spec(output={"uri": "s3://out"}, input={"uri": "claim://docs/a.jsonl"}),
            "spec.input.uri",
            id="a scheme that this place cannot read",
        ),
        pytest.param(a_batch(), "spec.output.uri", id="no output, and no default for it"),
        pytest.param(
            a_batch().with_spec(output={"uri": "s3://out"}, engine={"name": "vllm"}),
            "spec.engine.name",
            id="an engine that is not here",
        ),
        pytest.param(
            a_batch().with_spec(
                output={"uri": "s3://o"}, input={"uri": "s3://a", "format": "jsonl", "prompt": {"template": "{{ text"}}
            ),
            "spec.input.prompt.template",
            id="a template that is none",
        ),
        pytest.param(
            a_batch().with_spec(output={"uri": "s3://out"}, parameters={"false": 2}),
            "spec.parameters.false",
            id="a parameter n without its quotes",
        ),
    ],
)
def test_reconcile_refuses_what_this_place_cannot_do(batch: BatchBuilder, field: str) -> None:
    place = Installation(
        unsupported_engines={"vllm": "not in this image"}, unsupported_schemes={"claim": "no volumes here"}
    )
    plan = reconcile(replace(look(batch), installation=place))
    assert conditions(plan) == failing("InvalidSpec")
    assert field in plan.events[0].message


def test_reconcile_lets_a_good_input_in_with_one_write_unless_it_must_wait() -> None:
    def after_planning(verdict: Verdict) -> set[str]:
        plan = reconcile(look(a_batch(), jobs=[PLANNED], reports=[planned()], verdict=verdict))
        assert (plan.status.admission is not None) == verdict.admitted
        return {kind for kind, (status, _) in conditions(plan).items() if status == "True"}

    assert after_planning(Verdict(admitted=True)) == {"InputValidated", "Admitted"}
    assert after_planning(Verdict(admitted=False, reason=Reason.QUOTA_EXCEEDED)) == {"InputValidated"}


def test_reconcile_shows_the_queue_while_it_waits() -> None:
    verdict = Verdict(
        admitted=False, reason=Reason.QUOTA_EXCEEDED, message="needs 1 GPU, 8 of 8 used", position=3, ahead=2
    )
    waiting = reconcile(look(a_batch().validated(), verdict=verdict)).status
    assert waiting.queue is not None
    assert (waiting.queue.position, waiting.queue.ahead, waiting.summary.state) == (3, 2, "Waiting")
    assert reconcile(look(a_batch().validated())).status.queue is None


def test_reconcile_exit_codes_of_shards_are_told_in_the_end() -> None:
    word = gave_up(Role.RUN, "InputChanged", "reviews.jsonl was changed", ExitCode.SHARD_FAILED, shard=1)
    plan = reconcile(look(RUNNING, jobs=[LOST_SHARD], reports=[committed(0, 100), word]))
    assert "1 shards could not be done (shard 1: reviews.jsonl was changed)" in plan.events[-1].message


def test_reconcile_is_not_complete_while_the_last_worker_has_not_ended_well() -> None:
    said = [committed(0, 100), committed(1, 100)]
    still_running = replace(said[1], final=False, exit_code=None)
    died_before_the_manifest = replace(said[1], exit_code=1)
    for last in (still_running, died_before_the_manifest):
        plan = reconcile(look(RUNNING, jobs=[a_job(Role.RUN, active=0)], reports=[said[0], last]))
        assert not plan.status.finished
        assert plan.status.records.pending == 0, "the records are counted all the same"


NO_GPU = PodSnapshot(
    Role.RUN, "Pending", Reason.UNSCHEDULABLE, "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
)
NO_IMAGE = PodSnapshot(Role.PLAN, "Pending", Reason.IMAGE_PULL_FAILED, "not found")
AT_WORK = PodSnapshot(Role.RUN, "Running")
STARTING = PodSnapshot(Role.RUN, "Pending")


@pytest.mark.parametrize(
    ("batch", "pods", "state", "message"),
    [
        pytest.param(
            RUNNING,
            [NO_GPU, STARTING],
            "Unschedulable",
            "1 of 2 pods cannot start: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
            id="no pod runs",
        ),
        pytest.param(
            RUNNING,
            [NO_GPU, AT_WORK],
            "Running",
            "1 of 2 pods cannot start: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
            id="some pods run",
        ),
        pytest.param(
            a_batch(), [NO_IMAGE], "ImagePullFailed", "1 of 1 pods cannot start: not found", id="in preflight"
        ),
        pytest.param(RUNNING, [NO_IMAGE, AT_WORK], "Running", None, id="a pod of a step that is over"),
        pytest.param(RUNNING, [STARTING], "Running", None, id="nothing is known to be wrong"),
    ],
)
def test_reconcile_says_why_pods_do_not_start(
    batch: BatchBuilder, pods: list[PodSnapshot], state: str, message: str | None
) -> None:
    status = reconcile(replace(look(batch, jobs=[RUN]), pods=tuple(pods))).status
    found = status.condition(ConditionType.PODS_READY)
    assert (status.summary.state, found.message if found is not None else None) == (state, message)


def test_reconcile_says_that_pods_start_again() -> None:
    before = RUNNING.with_condition(ConditionType.PODS_READY, ConditionStatus.FALSE, Reason.UNSCHEDULABLE)
    plan = reconcile(replace(look(before, jobs=[RUN]), pods=(AT_WORK,)))
    assert conditions(plan)["PodsReady"] == ("True", "PodsStarted")
    assert [event.reason for event in plan.events] == ["PodsStarted"]


GRANTED = Verdict(admitted=True, pods=2, message="2 of 4 pods; the others follow when there is room")
WIDE = a_batch().sharded(4).validated(400)


def held(batch: BatchBuilder, pods: int) -> BatchBuilder:
    """With so many pods in its status."""
    return batch.admitted().with_status(admission=Admission(pods=pods, time=NOON))


def run_job(plan: Plan) -> tuple[bool, int] | None:
    """Whether the run Job is suspended, and its parallelism."""
    found = [child["spec"] for child in plan.children or () if child["metadata"]["name"] == "reviews-run"]
    return (found[0]["suspend"], found[0]["parallelism"]) if found else None


def a_run(parallelism: int, **fields: Any) -> JobSnapshot:
    return a_job(Role.RUN, parallelism=parallelism, **fields)


TAKEN_BACK = Verdict(admitted=False, reason=Reason.PREEMPTED, message="makes room for b/high")


@pytest.mark.parametrize(
    ("observed", "job", "holds"),
    [
        pytest.param(look(WIDE, verdict=GRANTED), None, 2, id="what is granted is written down first"),
        pytest.param(look(held(WIDE, 2), verdict=GRANTED), (False, 2), 2, id="then so many pods are let go"),
        pytest.param(
            look(held(WIDE, 2), verdict=Verdict(admitted=True, pods=3), jobs=[a_run(2, active=2)]), (False, 2), 3,
            id="more are written down first too"),
        pytest.param(
            look(held(WIDE, 3), verdict=Verdict(admitted=True, pods=3), jobs=[a_run(2, active=2)]), (False, 3), 3, id="and let go then"),
        pytest.param(
            look(held(WIDE, 4), verdict=GRANTED, jobs=[a_run(4, active=4)]), (False, 2), 4, id="fewer are held until the others are gone"),
        pytest.param(
            look(held(WIDE, 4), verdict=GRANTED, jobs=[a_run(2, active=3)]), (False, 2), 3, id="one of them is gone"),
        pytest.param(look(held(WIDE, 3), verdict=GRANTED, jobs=[a_run(2, active=2)]), (False, 2), 2, id="both are gone"),
        pytest.param(
            look(held(WIDE, 2), verdict=TAKEN_BACK, jobs=[a_run(2, active=2)]), (True, 2), 2, id="who gives way drains"),
        pytest.param(
            look(held(WIDE, 2), verdict=TAKEN_BACK, jobs=[a_run(2, active=0)]), (True, 2), 2,
            id="a Job that has not been told yet may still start pods"),
        pytest.param(
            look(held(WIDE, 2), verdict=TAKEN_BACK, jobs=[a_run(2, suspended=True, parked=False)]), (True, 2), 2,
            id="nor has one that has been told taken note yet"),
        pytest.param(
            look(held(WIDE, 2), verdict=TAKEN_BACK, jobs=[a_run(2, suspended=True, active=1)]), (True, 2), 1,
            id="it holds what is left"),
        pytest.param(
            look(held(WIDE, 1), verdict=TAKEN_BACK, jobs=[a_run(2, suspended=True)]), (True, 2), 0, id="it has given all back"),
        pytest.param(
            look(held(WIDE, 0), verdict=GRANTED, jobs=[a_run(4, suspended=True)]), (True, 4), 2, id="it may go on: written down first"),
        pytest.param(
            look(held(WIDE, 2), verdict=GRANTED, jobs=[a_run(4, suspended=True)]), (False, 2), 2, id="it goes on, with fewer pods"),
        pytest.param(
            look(held(WIDE, 2), verdict=Verdict(admitted=False), jobs=[]), None, 0, id="what was never let go is given back at once"),
        pytest.param(
            look(held(WIDE.with_status(shards=ShardCounts(total=4, succeeded=3)), 1), verdict=Verdict(admitted=True, pods=1),
                 jobs=[a_run(4, active=1, succeeded_indexes=frozenset({0, 1, 2}))]),
            (False, 4), 1, id="the last shard holds one pod, and the Job is not patched for that"),
        pytest.param(look(held(WIDE.with_spec(limits={"pods": 3}), 3)), (False, 3), 3, id="its own limit holds without a bulkhead too"),
        pytest.param(
            look(held(WIDE.with_spec(cancel=True), 2), jobs=[a_run(2, active=2)]), (True, 2), 2, id="an end holds what it has"),
        pytest.param(look(held(WIDE.with_spec(suspend=True), 2), jobs=[a_run(2, active=1)]), (True, 2), 2, id="so does suspending"),
    ],
)  # fmt: skip
def test_reconcile_lets_go_what_the_status_says_and_no_more(
    observed: Observed, job: tuple[bool, int] | None, holds: int
) -> None:
    plan = reconcile(observed)
    assert run_job(plan) == job
    assert (plan.status.admission.pods if plan.status.admission is not None else 0) == holds


def test_reconcile_holds_nothing_at_its_end() -> None:
    done = reconcile(look(held(RUNNING, 2), jobs=[DONE], reports=[committed(0, 100), committed(1, 100)])).status
    assert done.admission == Admission(pods=0, time=NOON), (
        "when it started still counts against the starts of the minute"
    )


def test_reconcile_remembers_when_it_was_last_let_start() -> None:
    first = reconcile(look(WIDE, verdict=GRANTED, after=5)).status.admission
    assert first == Admission(pods=2, time=NOON + timedelta(seconds=5))
    later = reconcile(look(held(WIDE, 2), verdict=Verdict(admitted=True, pods=4), after=9)).status.admission
    assert later == Admission(pods=4, time=NOON), "to grow is not to start"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        pytest.param({"parallelism": 0}, "spec.parallelism is 0: nothing runs until it is raised", id="no parallelism"),
        pytest.param(
            {"limits": {"gpus": 1}, "resources": {"gpus": 2}},
            "spec.limits.gpus must be at least 2, the GPUs of one pod, not 1", id="a limit that no pod fits in"),
    ],
)  # fmt: skip
def test_reconcile_says_when_the_batch_allows_itself_no_pod(spec: dict[str, Any], message: str) -> None:
    found = reconcile(look(WIDE.with_spec(**spec))).status.condition(ConditionType.ADMITTED)
    assert found is not None
    assert (found.reason, found.message) == ("NoPodsAllowed", message)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        pytest.param({"maxTokens": 1500}, "1500 of spec.budget.maxTokens 1500 are used up, 100 of 200 records are left", id="tokens"),
        pytest.param({"maxGpuSeconds": 3}, "3 of spec.budget.maxGpuSeconds 3 are used up, 100 of 200 records are left", id="GPU-seconds"),
        pytest.param({"maxTokens": 1501, "maxGpuSeconds": 4}, None, id="there is something left of both"),
    ],
)  # fmt: skip
def test_reconcile_ends_what_has_used_up_its_budget(budget: dict[str, int], message: str | None) -> None:
    batch = held(RUNNING.with_spec(budget=budget), 2)
    plan = reconcile(look(batch, jobs=[RUN], reports=[committed(0, 100)]))
    found = plan.status.condition(ConditionType.FAILED)
    assert (found.message if found is not None else None) == (f"stopping: {message}" if message else None)
    drained = a_job(Role.RUN, suspended=True, succeeded_indexes=frozenset({0}))
    ended = reconcile(look(batch, jobs=[drained], reports=[committed(0, 100)]))
    assert ended.status.is_true(ConditionType.FAILED) == bool(message), "what is done is kept for a retry"


@pytest.mark.parametrize(
    ("budget", "goes_on"),
    [
        pytest.param({"maxTokens": 1501}, True, id="raised above what was used"),
        pytest.param({"maxTokens": 1500}, False, id="raised to what was used"),
        pytest.param({"maxTokens": 1501, "maxGpuSeconds": 3}, False, id="raised, and another one is used up"),
        pytest.param({}, True, id="taken away"),
    ],
)
def test_a_batch_that_has_used_up_its_budget_goes_on_when_it_is_raised(
    budget: dict[str, int], *, goes_on: bool
) -> None:
    short = held(RUNNING.with_spec(budget={"maxTokens": 1000}), 2)
    drained = a_job(Role.RUN, suspended=True, succeeded_indexes=frozenset({0}))
    ended = reconcile(look(short, jobs=[drained], reports=[committed(0, 100)])).status
    assert ended.is_true(ConditionType.FAILED)
    raised = with_status(RUNNING.with_spec(budget=budget), ended)
    begun = reconcile(look(raised, jobs=[drained]))
    assert conditions(begun)["Failed"] == (("False", "Retrying") if goes_on else ("True", "BudgetExceeded"))
    assert begun.status.records.succeeded == 100, "what is done is kept"
    if goes_on:
        admitted = reconcile(look(raised.model_copy(update={"status": begun.status})))
        again = reconcile(look(raised.model_copy(update={"status": admitted.status})))
        assert children(again) == {"reviews-run-r1": False}


def test_reconcile_does_not_write_every_step_of_a_long_line() -> None:
    def status_at(position: int, before: InferenceBatchStatus | None) -> InferenceBatchStatus:
        verdict = Verdict(
            admitted=False,
            reason=Reason.QUOTA_EXCEEDED,
            message=f"{position} of 8 used",
            position=position,
            ahead=position - 1,
        )
        built = WIDE.build()
        batch = built.model_copy(update={"status": before}) if before is not None else built
        return reconcile(look(batch, verdict=verdict)).status

    far = status_at(1000, None)
    assert status_at(950, far) == far
    nearer = status_at(900, far)
    assert nearer.queue is not None
    assert nearer.queue.position == 900
    third = status_at(3, far)
    second = status_at(2, third)
    assert second.queue is not None
    assert second.queue.position == 2


@pytest.mark.parametrize(
    ("position", "kept_true"),
    [pytest.param(10, True, id="near the head"), pytest.param(11, False, id="far back")],
)
def test_reconcile_keeps_every_number_true_near_the_head_of_a_line(position: int, *, kept_true: bool) -> None:
    batch, statuses = WIDE.build(), list[InferenceBatchStatus]()
    for used in (6, 7):
        start = NOON + timedelta(minutes=100 + used)
        said: dict[str, Any] = {
            "message": f"needs 2 GPU, {used} of 8 used",
            "position": position,
            "ahead": position - 1,
        }
        verdict = Verdict(admitted=False, reason=Reason.QUOTA_EXCEEDED, estimated_start=start, **said)
        plan = reconcile(look(batch, verdict=verdict))
        statuses.append(plan.status)
        batch = batch.model_copy(update={"status": plan.status})
        assert plan.look_again_after is not None
        assert (plan.look_again_after <= timedelta(seconds=15)) == kept_true
    first, second = (status.condition(ConditionType.ADMITTED) for status in statuses)
    assert first is not None
    assert second is not None
    assert second.message == ("needs 2 GPU, 7 of 8 used" if kept_true else first.message)
    assert statuses[1].queue is not None
    assert statuses[1].queue.estimated_start_time == NOON + timedelta(minutes=107 if kept_true else 106)


def test_reconcile_of_an_empty_window_is_complete_without_a_pod_for_the_work() -> None:
    window = {"startTime": "2026-01-15T11:30:00Z", "endTime": "2026-01-15T12:00:00Z"}
    batch = a_batch().with_spec(input={"uri": "s3://in/", "objects": "ModifiedInWindow", "window": window})
    plan = reconcile(look(batch, jobs=[a_job(Role.PLAN, complete=True)], reports=[planned(records=0, shards=0)]))
    end = plan.status.condition(ConditionType.COMPLETE)
    assert end is not None
    assert (end.status, end.reason) == ("True", "NoData")
    assert "from 2026-01-15T11:30:00Z to 2026-01-15T12:00:00Z" in end.message
    assert plan.status.admission is None
    assert plan.children is None
