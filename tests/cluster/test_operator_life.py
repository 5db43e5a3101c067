"""The operator on a real control plane: what can happen in the life of a batch, from its manifest to its end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from builders import BatchBuilder, a_batch
from headrace.api import labels
from headrace.api.batchstatus import RecordCounts, RecordProblem
from headrace.api.meta import ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import ExitCode, Failure, Role
from headrace.shells.kube.resources import BATCHES, CONFIG_MAPS, JOBS, PODS

from .kubectl import KubectlError
from .operator_process import OperatorProcess
from .operator_rig import RECORDS, Rig, failed_with, plane, rig
from .operator_workers import Fate, Pod

__all__ = ["plane", "rig"]
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("operator"), pytest.mark.usefixtures("operator")]

INLINE = a_batch().inline(*RECORDS).sharded(4)
FROM_STORE = a_batch().sharded(4)
ALL_SUCCEEDED = RecordCounts(total=10, succeeded=10)


@pytest.fixture
def operator(rig: Rig) -> OperatorProcess:
    """One operator, and input that is cut into four shards."""
    rig.script.shards = 4
    return rig.operator().start().wait_ready()


def fates(**by_role: Fate) -> Callable[[Pod], Fate]:
    """The same fate for all pods of a role; other pods do their work."""
    return lambda pod: by_role.get(str(pod.role), Fate())


@pytest.mark.parametrize(
    ("batch", "jobs"),
    [(INLINE, {"reviews-run"}), (FROM_STORE, {"reviews-plan", "reviews-run"})],
    ids=["records in the object", "records in a store"],
)
def test_a_batch_is_complete_when_every_record_is_counted(rig: Rig, batch: BatchBuilder, jobs: set[str]) -> None:
    rig.submit(batch)
    rig.kubectl("wait", "--namespace", rig.namespace, "--for=condition=Complete", "ib/reviews", "--timeout=240s")
    status = rig.batch().status
    assert status.records == ALL_SUCCEEDED
    assert (status.usage.prompt_tokens, status.usage.completion_tokens) == (70, 30)
    assert set(rig.jobs()) == jobs

    header, row = rig.kubectl("get", "ib", "--namespace", rig.namespace).splitlines()
    assert header.split() == ["NAME", "STATE", "PROGRESS", "FAILED", "FILL", "ETA", "AGE"]
    assert row.split()[:-1] == ["reviews", "Complete", "10/10", "0", "4%"]
    rig.until_event("InputValid", "10 records in 4 shards")
    rig.until_event("Admitted", "no limit stands in the way")
    rig.until_event("RecordsProcessed", "10 of 10 records succeeded, 0 failed")


def test_running_workers_are_asked_how_far_they_are(rig: Rig) -> None:
    rig.script.fate = fates(run=Fate(waits=True, done_so_far=2))
    rig.submit(INLINE)
    status = rig.until(lambda batch: batch.status.records.succeeded == 8, "two records of each shard").status
    assert status.records == RecordCounts(total=10, succeeded=8, pending=2)
    assert status.records_per_second == "10.0"
    assert status.shards.active == 4
    rig.script.let_go()
    assert rig.until_state("Complete").status.records == ALL_SUCCEEDED


def test_bad_lines_end_a_batch_before_a_gpu_is_asked_for(rig: Rig) -> None:
    problem = RecordProblem(line=3, code="invalid_json", message="must be JSON")
    rig.script.fate = fates(plan=Fate(problems=(problem,)))
    rig.submit(FROM_STORE)
    status = rig.until_state("InputInvalid").status
    assert status.validation is not None
    assert status.validation.errors == (problem,)
    assert set(rig.jobs()) == {"reviews-plan"}


def test_a_retry_reads_the_input_that_was_mended(rig: Rig) -> None:
    problem = RecordProblem(line=3, code="invalid_json", message="must be JSON")
    rig.script.fate = fates(plan=Fate(problems=(problem,)))
    rig.submit(FROM_STORE)
    rig.until_state("InputInvalid")
    rig.script.fate = fates()
    rig.patch("reviews", {"metadata": {"annotations": {labels.RETRY: "1"}}})
    assert rig.until_state("Complete").status.records == ALL_SUCCEEDED
    assert set(rig.jobs()) == {"reviews-plan-r1", "reviews-run-r1"}


def test_a_retry_keeps_what_was_done_before_the_workers_failed(rig: Rig) -> None:
    no_model = Fate(exit_code=ExitCode.JOB_FAILED, failure=Failure(reason="NoModel", message="there is no such model"))
    rig.script.fate = lambda pod: no_model if pod.shard == 3 and pod.attempt == 1 else Fate()
    rig.submit(a_batch().inline(*RECORDS).sharded(4, parallelism=1))
    batch = rig.until_state("WorkerFailed")
    assert batch.status.records == RecordCounts(total=10, succeeded=8, pending=2)
    assert "NoModel: there is no such model" in failed_with(batch)
    rig.script.fate = fates()
    rig.patch("reviews", {"metadata": {"annotations": {labels.RETRY: "1"}}})
    assert rig.until_state("Complete").status.records == ALL_SUCCEEDED


def test_a_retry_redoes_the_records_that_have_failed(rig: Rig) -> None:
    rig.script.fate = lambda pod: Fate(failed_records=1) if pod.shard == 2 and "-r1-" not in pod.name else Fate()
    rig.submit(INLINE)
    assert rig.until_state("Complete").status.records == RecordCounts(total=10, succeeded=9, failed=1)
    rig.patch("reviews", {"metadata": {"annotations": {labels.RETRY: "1"}}})
    rig.eventually(lambda: rig.batch().status.retries == 1, "the retry begun")
    status = rig.until_state("Complete").status
    assert status.records == ALL_SUCCEEDED
    assert (status.shards.total, status.shards.succeeded) == (4, 4)
    assert set(rig.jobs()) == {"reviews-run-r1"}
    assert rig.jobs()["reviews-run-r1"]["spec"]["completions"] == 1
    assert [pod.shard for pod in rig.script.of_role(Role.RUN) if "-r1-" in pod.name] == [2], "no other shard gets a pod"


def test_a_shard_that_cannot_be_done_leaves_the_others_their_results(rig: Rig) -> None:
    broken = Fate(
        exit_code=ExitCode.SHARD_FAILED, failure=Failure(reason="Unreadable", message="the input has changed")
    )
    rig.script.fate = lambda pod: broken if (pod.role, pod.shard) == (Role.RUN, 2) else Fate()
    rig.submit(INLINE)
    batch = rig.until_state("ShardFailed")
    assert batch.status.records == RecordCounts(total=10, succeeded=8, failed=2)
    assert "shard 2: the input has changed" in failed_with(batch)
    assert set(rig.jobs()) == {"reviews-run", "reviews-finalize"}


def test_a_pod_that_drains_or_crashes_is_replaced(rig: Rig) -> None:
    first = {0: Fate(exit_code=ExitCode.DRAINED), 1: Fate(exit_code=1), 2: Fate(evicted=True)}
    rig.script.fate = lambda pod: first.get(pod.shard, Fate()) if pod.attempt == 1 else Fate()
    rig.submit(INLINE)
    assert rig.until_state("Complete").status.records == ALL_SUCCEEDED
    assert len(rig.script.of_role(Role.RUN)) == 7


def test_a_last_word_that_was_lost_is_found_by_finalize(rig: Rig) -> None:
    rig.script.fate = lambda pod: Fate(last_word=(pod.role, pod.shard) != (Role.RUN, 1))
    rig.submit(INLINE)
    assert rig.until_state("Complete").status.records == ALL_SUCCEEDED
    assert set(rig.jobs()) == {"reviews-run", "reviews-finalize"}


def test_failed_records_are_counted_and_said(rig: Rig) -> None:
    rig.script.fate = fates(run=Fate(failed_records=1))
    rig.submit(INLINE)
    status = rig.until_state("Complete").status
    assert status.records == RecordCounts(total=10, succeeded=6, failed=4)
    condition = status.condition(ConditionType.COMPLETE)
    assert condition is not None
    assert condition.reason == Reason.RECORDS_PROCESSED_WITH_ERRORS


def test_a_suspended_batch_gives_its_pods_back_and_goes_on_later(rig: Rig) -> None:
    rig.script.fate = fates(run=Fate(waits=True, done_so_far=1))
    rig.submit(INLINE)
    rig.until_at_work(4)
    rig.edit(suspend=True)
    batch = rig.until_state("Suspended")
    assert batch.status.is_true(ConditionType.SUSPENDED)
    rig.eventually(lambda: not rig.all(PODS), "no pods")
    assert rig.jobs()["reviews-run"]["spec"]["suspend"] is True
    rig.script.let_go()
    rig.edit(suspend=False)
    assert rig.until_state("Complete").status.records == ALL_SUCCEEDED
    assert len(rig.script.of_role(Role.RUN)) == 8


def test_a_batch_that_is_created_suspended_asks_for_nothing(rig: Rig) -> None:
    rig.submit(INLINE.with_spec(suspend=True))
    rig.until_state("Suspended")
    assert rig.jobs() == {}
    rig.edit(suspend=False)
    assert rig.until_state("Complete").status.records == ALL_SUCCEEDED


def test_a_batch_with_a_queue_is_told_that_there_is_no_kueue(rig: Rig) -> None:
    rig.submit(INLINE.with_spec(queueName="team-a"))
    batch = rig.until(lambda it: it.status.condition(ConditionType.ADMITTED) is not None, "it is said")
    admitted = batch.status.condition(ConditionType.ADMITTED)
    assert admitted is not None
    assert (admitted.status, admitted.reason) == (ConditionStatus.FALSE, Reason.KUEUE_NOT_INSTALLED)
    assert "install Kueue, or make the batch anew without a queueName" in admitted.message
    assert rig.jobs() == {}


def test_a_cancelled_batch_keeps_what_is_done(rig: Rig) -> None:
    rig.script.fate = lambda pod: Fate(waits=(pod.role, pod.shard) == (Role.RUN, 3))
    rig.submit(INLINE)
    rig.eventually(lambda: len(rig.script.committed) == 3, "three of four shards")
    rig.edit(cancel=True)
    batch = rig.until_state("Cancelled")
    assert batch.status.records == RecordCounts(total=10, succeeded=8, failed=2)
    assert rig.jobs()["reviews-finalize"]["metadata"]["labels"][labels.STOP_REASON] == "Cancelled"


def test_a_batch_over_its_deadline_is_closed(rig: Rig) -> None:
    rig.script.fate = fates(run=Fate(waits=True))
    rig.submit(INLINE.with_spec(completionDeadlineSeconds=3600))
    rig.until_at_work(4)
    rig.edit(completionDeadlineSeconds=1)
    batch = rig.until_state("DeadlineExceeded")
    assert batch.status.records == RecordCounts(total=10, failed=10)


def test_parallelism_may_change_while_the_batch_runs(rig: Rig) -> None:
    rig.script.fate = fates(run=Fate(waits=True))
    rig.submit(a_batch().inline(*RECORDS).sharded(4, parallelism=1))
    rig.until_at_work(1)
    rig.edit(parallelism=3)
    rig.until_at_work(3)
    rig.edit(parallelism=2)
    rig.until_at_work(2)
    rig.script.let_go()
    assert rig.until_state("Complete").status.records == ALL_SUCCEEDED


def test_what_cannot_change_is_refused_with_the_fields_message(rig: Rig) -> None:
    rig.submit(INLINE)
    rig.edit(cancel=True)
    patch = ("patch", "ib", "reviews", "--namespace", rig.namespace, "--type=merge", "--patch")
    with pytest.raises(KubectlError, match="shards cannot be changed once the batch exists"):
        rig.kubectl(*patch, '{"spec": {"shards": 5}}')
    with pytest.raises(KubectlError, match="cancel cannot be taken back"):
        rig.kubectl(*patch, '{"spec": {"cancel": false}}')


def test_a_run_job_that_was_deleted_is_made_again(rig: Rig) -> None:
    rig.script.fate = fates(run=Fate(waits=True, done_so_far=1))
    rig.submit(INLINE)
    rig.until_at_work(4)
    first = rig.jobs()["reviews-run"]["metadata"]["uid"]
    rig.delete(JOBS, "reviews-run")
    rig.eventually(lambda: [uid for uid in uids(rig) if uid != first], "another Job")
    rig.script.let_go()
    assert rig.until_state("Complete").status.records == ALL_SUCCEEDED


def uids(rig: Rig) -> list[str]:
    return [job["metadata"]["uid"] for job in rig.all(JOBS)]


def test_a_job_that_is_deleted_after_the_end_stays_deleted(rig: Rig) -> None:
    rig.submit(INLINE)
    rig.until_state("Complete")
    rig.delete(JOBS, "reviews-run")
    rig.submit(BatchBuilder("marker", INLINE.spec))
    rig.until_state("Complete", "marker")  # by now the operator has seen and handled the deletion
    assert set(rig.jobs()) == {"marker-run"}
    assert rig.batch().status.records == ALL_SUCCEEDED


def planning(rig: Rig) -> None:
    rig.script.fate = fates(plan=Fate(waits=True))
    rig.submit(FROM_STORE)
    rig.eventually(lambda: rig.script.of_role(Role.PLAN), "the preflight")


def running(rig: Rig) -> None:
    rig.script.fate = fates(run=Fate(waits=True))
    rig.submit(INLINE)
    rig.until_at_work(4)


def suspended(rig: Rig) -> None:
    running(rig)
    rig.edit(suspend=True)
    rig.until_state("Suspended")


def stopping(rig: Rig) -> None:
    rig.script.fate = fates(run=Fate(waits=True), finalize=Fate(waits=True))
    rig.submit(INLINE)
    rig.until_at_work(4)
    rig.edit(cancel=True)
    rig.eventually(lambda: "reviews-finalize" in rig.jobs(), "the closing of the books")


def complete(rig: Rig) -> None:
    rig.submit(INLINE)
    rig.until_state("Complete")


def failed(rig: Rig) -> None:
    rig.script.fate = fates(plan=Fate(exit_code=ExitCode.JOB_FAILED))
    rig.submit(FROM_STORE)
    rig.until_state("WorkerFailed")


@pytest.mark.parametrize(
    "state", [planning, running, suspended, stopping, complete, failed], ids=lambda it: it.__name__
)
def test_a_deleted_batch_takes_everything_with_it(rig: Rig, state: Callable[[Rig], None]) -> None:
    state(rig)
    rig.delete(BATCHES, "reviews")
    rig.eventually(lambda: rig.gone(BATCHES, "reviews"), "the batch gone")
    rig.eventually(lambda: not rig.all(JOBS) and not rig.all(PODS), "its Jobs and pods gone")
    rig.eventually(lambda: rig.gone(CONFIG_MAPS, "reviews-input"), "its records gone")


def test_a_namesake_of_a_deleted_batch_starts_from_nothing(rig: Rig) -> None:
    running(rig)
    rig.delete(BATCHES, "reviews")
    rig.script.let_go()
    rig.submit(INLINE)
    assert rig.until_state("Complete").status.records == ALL_SUCCEEDED
    owners = {job["metadata"]["ownerReferences"][0]["uid"] for job in rig.jobs().values()}
    assert owners == {rig.batch().metadata.uid}
