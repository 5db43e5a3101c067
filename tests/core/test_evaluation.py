"""A batch with an evaluation: it is looked at when all its records are done, and what is drift is decided here."""

from __future__ import annotations

from typing import Any

import pytest

from builders import BatchBuilder, a_batch, a_job, committed, gave_up, look
from headrace.api.batchstatus import RecordCounts
from headrace.api.evaluation import Feature, Scores
from headrace.api.meta import ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import Compared, EvaluationReport, Failure, FinalizeReport, Role
from headrace.core.observed import JobSnapshot, WorkerReport
from headrace.core.plan import Plan
from headrace.core.reconcile import reconcile

SCORES = Scores(expected=10, correct=9, accuracy="0.9000", precision="0.9000", recall="0.9000", f1="0.9000")
WANTED: dict[str, Any] = {"reference": "s3://out/january/"}
RAN = a_job(Role.RUN, complete=True, succeeded_indexes=frozenset({0}))
LOOKING = a_job(Role.FINALIZE)


def at_the_end(**evaluation: Any) -> BatchBuilder:
    """A batch whose only shard is committed."""
    return a_batch().with_spec(evaluation=evaluation).validated(100).admitted()


def looked(batch: BatchBuilder, *said: WorkerReport, finalize: JobSnapshot | None = LOOKING) -> Plan:
    jobs = (RAN, finalize) if finalize is not None else (RAN,)
    return reconcile(look(batch, jobs=jobs, reports=(committed(0, 100), *said)))


def found(**fields: Any) -> WorkerReport:
    """The word of a worker that has looked at the run."""
    records = RecordCounts(total=100, succeeded=100)
    report = FinalizeReport(records=records, evaluation=EvaluationReport(**fields))
    return WorkerReport(Role.FINALIZE, report, final=True, exit_code=0)


def said_of(plan: Plan, kind: ConditionType) -> tuple[str, str, str]:
    condition = plan.status.condition(kind)
    assert condition is not None
    return condition.status, condition.reason, condition.message


def test_batch_is_looked_at_when_all_its_records_are_done() -> None:
    plan = looked(at_the_end(), finalize=None)
    assert not plan.status.finished
    assert plan.status.records.succeeded == 100
    assert said_of(plan, ConditionType.EVALUATED)[:2] == (ConditionStatus.UNKNOWN, Reason.EVALUATING)
    assert plan.status.summary.state == "Evaluating"
    assert [child["metadata"]["name"] for child in plan.children or () if child["kind"] == "Job"] == [
        "reviews-run",
        "reviews-finalize",
    ]
    assert plan.status.admission is None or plan.status.admission.pods == 0, "no GPU is held for it"


def test_batch_without_an_evaluation_is_complete_at_once() -> None:
    plan = reconcile(look(a_batch().validated(100).admitted(), jobs=(RAN,), reports=(committed(0, 100),)))
    assert plan.status.is_true(ConditionType.COMPLETE)
    assert plan.status.condition(ConditionType.EVALUATED) is None


def test_batch_in_which_too_many_records_have_failed_is_not_looked_at() -> None:
    batch = at_the_end().with_spec(failurePolicy={"maxFailedRecords": 1})
    plan = reconcile(look(batch, jobs=(RAN,), reports=(committed(0, 98, 2),)))
    assert said_of(plan, ConditionType.FAILED)[1] == Reason.TOO_MANY_FAILED_RECORDS


def test_scores_are_in_the_status_and_in_the_condition() -> None:
    plan = looked(at_the_end(), found(scores=SCORES))
    assert plan.status.is_true(ConditionType.COMPLETE)
    assert plan.status.evaluation is not None
    assert plan.status.evaluation.scores == SCORES
    assert plan.status.evaluation.uri.endswith("/reviews/evaluation.json")
    _, reason, message = said_of(plan, ConditionType.EVALUATED)
    assert reason == Reason.ANSWERS_EVALUATED
    assert message.startswith("9 of 10 answers are what was expected: accuracy 0.9000")
    assert plan.status.condition(ConditionType.DATA_DRIFT) is None, "it is compared with nothing"


@pytest.mark.parametrize(
    ("psi", "chance", "percent", "limit", "drifted"),
    [
        pytest.param("0.2500", "0.0100", 20, "0.20", True, id="above the limit"),
        pytest.param("0.2000", "0.0100", 20, "0.20", False, id="at the limit"),
        pytest.param("0.2500", "0.3000", 20, "0.3000", False, id="not more than chance explains"),
        pytest.param("0.4000", "0.3000", 20, "0.3000", True, id="more than chance explains"),
        pytest.param("0.2500", "0.0100", 30, "0.30", False, id="a limit of the user's"),
        pytest.param("12.0000", "9.0000", 20, "9.0000", True, id="numbers that are no words"),
    ],
)
def test_feature_has_drifted_above_both_limits(psi: str, chance: str, percent: int, limit: str, drifted: bool) -> None:
    compared = (
        Compared(feature=Feature.PROMPT_LENGTH, psi=psi, chance=chance),
        Compared(feature=Feature.ERROR_RATE, psi="0.0000", chance="0.0100"),
    )
    plan = looked(at_the_end(**WANTED, maxPsiPercent=percent), found(compared=compared))
    assert plan.status.evaluation is not None
    first = plan.status.evaluation.drift[0]
    assert (first.psi, first.limit, first.drifted) == (psi, limit, drifted)
    status, reason, message = said_of(plan, ConditionType.DATA_DRIFT)
    if drifted:
        assert (status, reason) == (ConditionStatus.TRUE, Reason.DISTRIBUTION_CHANGED)
        assert message == f"PromptLength has a PSI of {psi}, above {limit}"
        assert [event.type for event in plan.events if event.reason == reason] == ["Warning"]
    else:
        assert (status, reason) == (ConditionStatus.FALSE, Reason.DISTRIBUTION_UNCHANGED)
        assert f"the largest PSI of 2 features is {psi}, of PromptLength" in message


def test_feature_that_only_one_run_has_is_named() -> None:
    compared = (Compared(feature=Feature.ERROR_RATE, psi="0.0000", chance="0.0100"),)
    plan = looked(at_the_end(**WANTED), found(compared=compared, missing=(Feature.LANGUAGE,)))
    assert said_of(plan, ConditionType.DATA_DRIFT)[2].endswith("only one of the runs has Language")


def test_reference_that_has_gone_meanwhile_leaves_the_drift_unknown_and_the_scores_as_they_are() -> None:
    gone = Failure(reason="ReferenceNotFound", message="there is none")
    plan = looked(at_the_end(**WANTED), found(scores=SCORES, incomparable=gone))
    assert plan.status.is_true(ConditionType.COMPLETE)
    assert plan.status.is_true(ConditionType.EVALUATED)
    expected = (ConditionStatus.UNKNOWN, Reason.NOT_COMPARED, "ReferenceNotFound: there is none")
    assert said_of(plan, ConditionType.DATA_DRIFT) == expected


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(found(failure=Failure(reason="InputChanged", message="it has")), id="it cannot be made"),
        pytest.param(gave_up(Role.FINALIZE, "InputChanged", "it has"), id="its worker gave up"),
    ],
)
def test_evaluation_that_fails_costs_nobody_the_results(said: WorkerReport) -> None:
    plan = looked(at_the_end(**WANTED), said, finalize=a_job(Role.FINALIZE, failed=True))
    assert plan.status.is_true(ConditionType.COMPLETE)
    status, reason, message = said_of(plan, ConditionType.EVALUATED)
    assert (status, reason) == (ConditionStatus.FALSE, Reason.EVALUATION_FAILED)
    assert message == "InputChanged: it has; the results are complete all the same"
    assert said_of(plan, ConditionType.DATA_DRIFT)[1] == Reason.NOT_COMPARED


def test_evaluation_whose_pods_die_is_given_up_with_the_words_of_the_job() -> None:
    dead = a_job(Role.FINALIZE, failed=True, failure_message="Job has reached the specified backoff limit")
    plan = looked(at_the_end(), finalize=dead)
    assert said_of(plan, ConditionType.EVALUATED)[2].startswith("Job has reached the specified backoff limit; ")


def test_retry_forgets_what_was_found_and_looks_again() -> None:
    done = looked(at_the_end(), found(scores=SCORES)).status
    batch = at_the_end().with_meta(annotations={"headrace.dev/retry": "1"}).build()
    failed = done.model_copy(update={"records": RecordCounts(total=100, succeeded=99, failed=1)})
    plan = reconcile(look(batch.model_copy(update={"status": failed})))
    assert plan.status.evaluation is None
    assert not plan.status.is_true(ConditionType.COMPLETE)


def test_labels_that_no_answer_can_tell_apart_are_refused() -> None:
    plan = reconcile(look(a_batch().with_spec(evaluation={"match": "Label", "labels": ["yes", "Yes."]})))
    message = "spec.evaluation.labels: yes and Yes. must differ by more than case and punctuation"
    assert said_of(plan, ConditionType.FAILED)[2].startswith(message)


def test_worker_sees_the_reference_and_the_model_of_vectors_where_they_are_mounted() -> None:
    use = {"model": {"name": "e", "task": "embedding", "source": {"claim": {"name": "models", "path": "e"}}}}
    batch = at_the_end(reference="claim://runs/january/", embedding={**use, "engine": {"name": "transformers"}})
    plan = looked(batch, finalize=None)
    job = next(child for child in plan.children or () if child["metadata"]["name"] == "reviews-finalize")
    pod = job["spec"]["template"]["spec"]
    told = pod["containers"][0]["env"][0]["value"]
    assert '"reference":"file:///var/run/headrace/runs/january/"' in told
    assert '"path":"/var/run/headrace/models/e"' in told
    claims = {
        volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume
    }
    assert claims == {"runs", "models"}
    assert pod["containers"][0]["resources"]["requests"] == {"cpu": "1", "memory": "4Gi"}, "a model needs room"


def test_inline_records_that_are_evaluated_are_read_by_a_pod() -> None:
    """What they are compared with may lie anywhere."""
    records = a_batch().inline({"custom_id": "a", "text": "b"}).with_spec(evaluation={})
    plan = reconcile(look(records))
    assert [child["kind"] for child in plan.children or ()] == ["ConfigMap", "Job"]
    assert said_of(plan, ConditionType.INPUT_VALIDATED)[1] == Reason.PLANNING
