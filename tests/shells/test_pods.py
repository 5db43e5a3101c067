"""Pods as processes: how they are started and told, how they end, and what a shell finds that comes after another."""

from __future__ import annotations

import itertools
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from builders import NOON
from headrace.api.worker import Role, ShardReport
from headrace.core.job_controller import PodPhase
from headrace.core.observed import WorkerReport
from headrace.shells.local.containers import Programs
from headrace.shells.local.converge import utc_now
from headrace.shells.local.podrecord import PodRecord, last_failure
from headrace.shells.local.pods import CANNOT_START, Pods
from headrace.shells.local.state import StateError
from laptop import FakeWorker, die, eventually, processes_with


def a_run_job(**spec: Any) -> dict[str, Any]:
    """A run Job as the core renders it, as far as a pod needs it."""
    container = {
        "name": "worker",
        "command": ["headrace_worker"],
        "args": ["run"],
        "env": [{"name": "HEADRACE_CONFIG", "value": "{}"}, {"name": "HOME", "value": "/tmp"}],
    }
    template = {"spec": {"terminationGracePeriodSeconds": 600, "containers": [container]}}
    return {
        "metadata": {"name": "reviews-run", "uid": "uid-run", "labels": {"headrace.dev/role": "run"}},
        "spec": {"completionMode": "Indexed", "completions": 2, "parallelism": 2, "template": template, **spec},
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the pods are."""
    return tmp_path / "pods"


def take_over(folder: Path, programs: Programs) -> Pods:
    """A shell that takes the pods over."""
    return Pods(folder, utc_now(), programs)


def only(pods: Pods) -> PodRecord:
    """The one pod that there is."""
    (record,) = pods.of("uid-run")
    return record


def wait_for_end(pods: Pods) -> PodRecord:
    """The one pod, once it has ended."""
    eventually(lambda: pods.poll(utc_now()) or not pods.running)
    return only(pods)


def a_pod_that_waits(folder: Path, worker: FakeWorker, **orders: Any) -> Pods:
    """A shell with one pod, of shard 0, that is in the middle of its work."""
    worker.orders(hold=[0], **orders)
    pods = take_over(folder, worker.programs)
    pods.start(a_run_job(), 0, utc_now())
    eventually((worker.log / "waits-0").exists)
    return pods


def first_word(pods: Pods) -> WorkerReport:
    """What the one pod says of itself, asked until it answers in time."""
    asked = itertools.count(1)

    def heard() -> bool:
        pods.listen(utc_now() + timedelta(seconds=next(asked)))
        return bool(pods.reports())

    eventually(heard)
    (said,) = pods.reports()
    return said


@pytest.mark.parametrize("exit_code", [0, 1, 42, 43, 44])
def test_pod_ends_with_the_exit_code_of_its_worker(folder: Path, worker: FakeWorker, exit_code: int) -> None:
    worker.orders(exits={"0": [exit_code]})
    pods = take_over(folder, worker.programs)
    pods.start(a_run_job(), 0, utc_now())
    state = wait_for_end(pods).state()
    assert (state.exit_code, state.disrupted) == (exit_code, False)
    assert state.phase == (PodPhase.SUCCEEDED if exit_code == 0 else PodPhase.FAILED)


def test_pod_is_told_what_its_job_says(folder: Path, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    pods = take_over(folder, worker.programs)
    pods.start(a_run_job(), 1, utc_now())
    record = wait_for_end(pods)
    told = worker.environment("run-1-1")
    assert told["HEADRACE_CONFIG"] == "{}"
    assert told["JOB_COMPLETION_INDEX"] == "1"
    assert told["HEADRACE_METRICS_PORT"] == "0"
    assert told["HEADRACE_DRAIN_ON_EOF"] == "1"
    assert told["HEADRACE_TERMINATION_LOG"] == str(folder / record.name / "termination")
    assert told["HOME"] == "/home/ada", "the home of the image is no home for the user's model caches"


def test_pod_of_a_job_that_is_not_indexed_has_no_index(folder: Path, worker: FakeWorker) -> None:
    pods = take_over(folder, worker.programs)
    pods.start(a_run_job(completionMode="NonIndexed"), 0, utc_now())
    wait_for_end(pods)
    assert "JOB_COMPLETION_INDEX" not in worker.environment("run-0-1")


@pytest.mark.parametrize(
    ("parallelism", "completions", "threads"),
    [
        pytest.param(1, 8, 8, id="one pod has the machine"),
        pytest.param(4, 8, 2, id="four pods share it"),
        pytest.param(4, 1, 8, id="there are no more pods than shards"),
        pytest.param(99, 99, 1, id="at least one thread"),
    ],
)
def test_pods_share_the_cores(
    folder: Path,
    worker: FakeWorker,
    monkeypatch: pytest.MonkeyPatch,
    parallelism: int,
    completions: int,
    threads: int,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    pods = take_over(folder, worker.programs)
    pods.start(a_run_job(parallelism=parallelism, completions=completions), 0, utc_now())
    wait_for_end(pods)
    assert worker.environment("run-0-1")["HEADRACE_THREADS"] == str(threads)


def test_pod_that_cannot_be_started_has_ended_with_the_reason_in_its_log(folder: Path) -> None:
    pods = take_over(folder, {"headrace_worker": ("/nowhere/worker",)})
    pods.start(a_run_job(), 0, utc_now())
    assert only(pods).exit_code == CANNOT_START
    assert "/nowhere/worker" in pods.log(only(pods).name).read_text()
    assert last_failure(folder) == pods.log(only(pods).name)


def test_stop_lets_a_pod_put_its_work_away(folder: Path, worker: FakeWorker) -> None:
    pods = a_pod_that_waits(folder, worker)
    pods.stop([only(pods).name], utc_now())
    assert only(pods).state().terminating
    state = wait_for_end(pods).state()
    assert (state.exit_code, state.disrupted, state.terminating) == (42, True, False)


def test_poll_kills_a_pod_that_outstays_its_grace_period(folder: Path, worker: FakeWorker) -> None:
    pods = a_pod_that_waits(folder, worker, deaf=[0])
    told = utc_now()
    pods.stop([only(pods).name], told)
    assert not pods.poll(told + timedelta(seconds=600)), "the grace period has not passed"
    eventually(lambda: pods.poll(told + timedelta(seconds=601)))
    assert only(pods).exit_code == 128 + signal.SIGKILL
    assert last_failure(folder) is None, "it did not fail of itself: nobody should look for the reason in its log"


def test_drain_in_a_hurry_kills(folder: Path, worker: FakeWorker) -> None:
    pods = a_pod_that_waits(folder, worker, deaf=[0])
    pods.drain(utc_now, hurry=lambda: True)
    assert only(pods).exit_code == 128 + signal.SIGKILL


def test_reports_are_the_last_words_of_pods_that_have_ended(folder: Path, worker: FakeWorker) -> None:
    pods = take_over(folder, worker.programs)
    pods.start(a_run_job(), 0, utc_now())
    assert pods.reports() == ()
    wait_for_end(pods)
    (said,) = pods.reports()
    assert isinstance(said.report, ShardReport)
    assert (said.role, said.final, said.exit_code, said.report.committed) == (Role.RUN, True, 0, True)
    (heard_again,) = take_over(folder, worker.programs).reports()
    assert heard_again == said, "the next shell hears the same"


def test_reports_of_running_pods_are_asked_for_at_their_ports(folder: Path, worker: FakeWorker) -> None:
    pods = a_pod_that_waits(folder, worker, serve=True)
    pods.listen(NOON)
    assert pods.reports() == (), "it was asked a moment ago"
    said = first_word(pods)
    assert isinstance(said.report, ShardReport)
    assert (said.final, said.report.records.succeeded) == (False, 1)
    pods.drain(utc_now)


def test_pod_of_a_shell_that_died_drains_and_counts_as_lost(folder: Path, worker: FakeWorker) -> None:
    pods = a_pod_that_waits(folder, worker)
    die(pods)
    after = take_over(folder, worker.programs)
    assert only(after).state().terminating or not only(after).running
    state = wait_for_end(after).state()
    assert (state.phase, state.exit_code, state.disrupted) == (PodPhase.FAILED, None, True)
    (said,) = after.reports()
    assert not said.final, "how far the shard was counts, but nobody knows how the pod ended"
    assert not list(processes_with("FAKE_WORKER_LOG", str(worker.log)))


def test_pod_of_a_shell_that_died_is_killed_when_it_does_not_drain(folder: Path, worker: FakeWorker) -> None:
    pods = a_pod_that_waits(folder, worker, deaf=[0])
    die(pods)
    after = take_over(folder, worker.programs)
    later = utc_now() + timedelta(seconds=601)
    eventually(lambda: after.poll(later))
    assert only(after).state().disrupted
    assert not list(processes_with("FAKE_WORKER_LOG", str(worker.log)))


def test_reports_of_a_pod_that_died_without_a_word_are_what_it_showed_before(folder: Path, worker: FakeWorker) -> None:
    pods = a_pod_that_waits(folder, worker, serve=True, deaf=[0])
    first_word(pods)
    pods.drain(utc_now, hurry=lambda: True)
    (said,) = pods.reports()
    assert isinstance(said.report, ShardReport)
    assert (said.final, said.report.committed, said.report.records.succeeded) == (False, False, 1)


def test_reports_of_a_lost_pod_are_no_last_words(folder: Path, worker: FakeWorker) -> None:
    """It may have died after its commit and before the manifest of the batch: its shard is looked at once more."""
    pods = take_over(folder, worker.programs)
    pods.start(a_run_job(), 0, utc_now())
    eventually((folder / "reviews-run-0-1" / "termination").exists)
    die(pods)
    after = take_over(folder, worker.programs)
    wait_for_end(after)
    (said,) = after.reports()
    assert isinstance(said.report, ShardReport)
    assert (said.final, said.report.committed, said.report.records.succeeded) == (False, False, 5)


def test_pods_of_an_index_have_names_of_their_own(folder: Path, worker: FakeWorker) -> None:
    pods = take_over(folder, worker.programs)
    for _ in range(2):
        pods.start(a_run_job(), 0, utc_now())
    assert [pod.name for pod in pods.of("uid-run")] == ["reviews-run-0-1", "reviews-run-0-2"]
    pods.drain(utc_now)


def test_forget_removes_all_traces_of_a_job(folder: Path, worker: FakeWorker) -> None:
    pods = take_over(folder, worker.programs)
    pods.start(a_run_job(), 0, utc_now())
    wait_for_end(pods)
    pods.forget(["uid-run"])
    assert (pods.of("uid-run"), pods.reports(), list(folder.iterdir())) == ((), (), [])


def test_pods_with_a_damaged_record_name_the_file(folder: Path) -> None:
    (folder / "reviews-run-0-1").mkdir(parents=True)
    (folder / "reviews-run-0-1" / "pod.json").write_text("{}")
    with pytest.raises(StateError, match=r"reviews-run-0-1/pod\.json is not the record of a pod"):
        take_over(folder, {})
