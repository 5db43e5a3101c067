"""FanOutJobs on a real control plane: branches are InferenceBatches, apart from each other, and their end is joined."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fanout_builders import FanOutBuilder, a_fan_out
from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.fanoutjob import FanOutJob
from headrace.api.reasons import ConditionType
from headrace.api.worker import ExitCode, Failure, Role
from headrace.shells.kube.resources import BATCHES, FAN_OUTS, JOBS

from .operator_process import OperatorProcess
from .operator_rig import RECORDS, Rig, fan_out_manifest, plane, rig
from .operator_workers import Fate, Pod

__all__ = ["plane", "rig"]
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("operator"), pytest.mark.usefixtures("operator")]

INLINE = a_fan_out("one", "two", "three").with_spec(input={"inline": RECORDS, "format": "jsonl"})
GIVES_UP = Fate(
    exit_code=ExitCode.JOB_FAILED, failure=Failure(reason="ModelNotFound", message="there is no such model")
)


@pytest.fixture
def operator(rig: Rig) -> OperatorProcess:
    """One operator."""
    return rig.operator().start().wait_ready()


def branch_of(pod: Pod) -> str:
    return pod.config.batch.name.removeprefix("answers").removeprefix("-")


def runs(**by_branch: Fate) -> Callable[[Pod], Fate]:
    """The fate of the run pods of a branch; all other pods do their work."""
    return lambda pod: by_branch.get(branch_of(pod), Fate()) if pod.role == Role.RUN else Fate()


def submit(rig: Rig, fan_out: FanOutBuilder) -> None:
    rig.create(FAN_OUTS, fan_out_manifest(fan_out))


def fan_out(rig: Rig) -> FanOutJob:
    return FanOutJob.parse(rig.get(FAN_OUTS, "answers"))


def until_state(rig: Rig, state: str) -> FanOutJob:
    rig.eventually(lambda: rig.state(FAN_OUTS, "answers") == state, f"state {state}")
    return fan_out(rig)


def branches(rig: Rig) -> dict[str, JsonObject]:
    """The InferenceBatches of the branches."""
    return {batch["metadata"]["labels"][labels.BRANCH]: batch for batch in rig.all(BATCHES)}


def message(found: FanOutJob, kind: ConditionType) -> str:
    condition = found.status.condition(kind)
    assert condition is not None
    return f"{condition.reason}: {condition.message}"


def test_a_fan_out_is_complete_when_its_branches_are_joined(rig: Rig) -> None:
    submit(rig, INLINE)
    status = until_state(rig, "Complete").status
    rig.kubectl("wait", "--namespace", rig.namespace, "--for=condition=Complete", "fo/answers", "--timeout=60s")
    assert status.records.to_object() == {"total": 10, "succeeded": 10, "failed": 0, "pending": 0}
    assert [(branch.name, branch.state) for branch in status.branches] == [
        ("one", "Complete"), ("two", "Complete"), ("three", "Complete")
    ]  # fmt: skip
    assert set(rig.jobs()) == {"answers-one-run", "answers-two-run", "answers-three-run", "answers-join"}
    header, row = rig.kubectl("get", "fo", "--namespace", rig.namespace).splitlines()
    assert header.split() == ["NAME", "STATE", "PROGRESS", "BRANCHES", "SUCCEEDED", "FAILED", "AGE"]
    assert row.split()[:-1] == ["answers", "Complete", "30/30", "3", "3", "0"]


def test_a_branch_that_fails_changes_nothing_for_the_others(rig: Rig) -> None:
    rig.script.fate = runs(two=GIVES_UP)
    submit(rig, INLINE.policy("Quorum", 2))
    found = until_state(rig, "PartiallySucceeded")
    assert message(found, ConditionType.COMPLETE).startswith("PartiallySucceeded: 10 of 10 records have an answer")
    assert "without two (WorkerFailed)" in message(found, ConditionType.COMPLETE)
    states = {branch.name: branch.state for branch in found.status.branches}
    assert states == {"one": "Complete", "two": "WorkerFailed", "three": "Complete"}


def test_a_retry_runs_the_failed_branch_alone(rig: Rig) -> None:
    rig.script.fate = lambda pod: (
        GIVES_UP if branch_of(pod) == "two" and "-r1-" not in pod.name and pod.role == Role.RUN else Fate()
    )
    submit(rig, INLINE)
    assert "two (WorkerFailed)" in message(until_state(rig, "BranchesFailed"), ConditionType.FAILED)
    before = {name: batch["metadata"]["uid"] for name, batch in branches(rig).items()}
    rig.change(FAN_OUTS, "answers", {"metadata": {"annotations": {labels.RETRY: "1"}}})
    assert until_state(rig, "Complete").status.retries == 1
    after = branches(rig)
    assert {name: batch["metadata"]["uid"] for name, batch in after.items()} == before
    assert {name: batch["status"].get("retries", 0) for name, batch in after.items()} == {
        "one": 0,
        "two": 1,
        "three": 0,
    }
    assert {name for name in rig.jobs() if "join" in name} == {"answers-join-r1"}


def test_a_retry_redoes_failed_records_and_leaves_the_jobs_of_other_branches(rig: Rig) -> None:
    rig.script.fate = lambda pod: (
        Fate(failed_records=3)
        if branch_of(pod) == "two" and "-r1-" not in pod.name and pod.role == Role.RUN
        else Fate()
    )
    submit(rig, INLINE)
    until_state(rig, "Complete")
    assert branches(rig)["two"]["status"]["records"]["failed"] == 3
    before = {name: job["metadata"]["uid"] for name, job in rig.jobs().items()}
    rig.change(FAN_OUTS, "answers", {"metadata": {"annotations": {labels.RETRY: "1"}}})
    rig.eventually(lambda: fan_out(rig).status.retries == 1, "the retry begun")
    status = until_state(rig, "Complete").status
    assert {branch.name: branch.round for branch in status.branches} == {"one": 0, "two": 1, "three": 0}
    assert branches(rig)["two"]["status"]["records"] == {"total": 10, "succeeded": 10, "failed": 0, "pending": 0}
    after = {name: job["metadata"]["uid"] for name, job in rig.jobs().items()}
    assert set(after) == {"answers-one-run", "answers-two-run-r1", "answers-three-run", "answers-join-r1"}
    kept = ("answers-one-run", "answers-three-run")
    assert [after[name] for name in kept] == [before[name] for name in kept]


CASCADE = (
    INLINE.with_branch("three", stage=1)
    .policy("All")
    .with_spec(aggregation={"type": "vote"}, cascade={"minAgreementPercent": 100})
)


def test_a_cascade_begins_its_next_stage_with_what_was_selected(rig: Rig) -> None:
    rig.script.fate = runs(one=Fate(waits=True))
    submit(rig, CASCADE)
    rig.until_at_work(1)
    rig.eventually(lambda: "completionTime" in branches(rig).get("two", {}).get("status", {}), "the second branch done")
    assert set(branches(rig)) == {"one", "two"}
    assert not rig.script.of_role(Role.SELECT)
    rig.script.let_go()
    found = until_state(rig, "Complete")
    assert [(it.stage, it.records, it.spared) for it in found.status.stages] == [(1, 3, 7)]
    assert found.status.saved_tokens == 7 * 10
    assert len(rig.script.of_role(Role.SELECT)) == 1
    uri = branches(rig)["three"]["spec"]["input"]["uri"]
    assert uri.endswith("/_headrace/stages/1.jsonl")


def test_a_cascade_whose_first_stage_settles_everything_makes_no_other_branch(rig: Rig) -> None:
    rig.script.disputed = 0
    submit(rig, CASCADE)
    found = until_state(rig, "Complete")
    assert set(branches(rig)) == {"one", "two"}
    assert (found.status.branches[2].reason, found.status.saved_tokens) == ("not_escalated", 10 * 10)


def test_an_operator_that_is_killed_while_records_are_selected_goes_on(rig: Rig, operator: OperatorProcess) -> None:
    rig.script.fate = lambda pod: Fate(waits=pod.role == Role.SELECT)
    submit(rig, CASCADE)
    rig.eventually(lambda: rig.script.of_role(Role.SELECT), "the selection begun")
    operator.kill()
    rig.script.let_go()
    operator.start().wait_ready()
    until_state(rig, "Complete")
    assert len(rig.script.of_role(Role.SELECT)) == 1


def test_an_image_of_the_users_is_put_between_two_workers(rig: Rig) -> None:
    image = {"reference": "registry.example/join:1", "args": ["--all"]}
    submit(rig, INLINE.with_spec(aggregation={"type": "image", "image": image}))
    until_state(rig, "Complete")
    pod = rig.jobs()["answers-join"]["spec"]["template"]["spec"]
    assert [one["name"] for one in pod["initContainers"]] == ["collect", "program"]


def test_any_cancels_the_losers(rig: Rig) -> None:
    rig.script.fate = runs(one=Fate(waits=True), three=Fate(waits=True))
    submit(rig, INLINE.policy("Any"))
    found = until_state(rig, "PartiallySucceeded")
    assert "without one (Cancelled), three (Cancelled)" in message(found, ConditionType.COMPLETE)
    assert {name: batch["spec"]["cancel"] for name, batch in branches(rig).items()} == {
        "one": True,
        "two": False,
        "three": True,
    }


def test_no_more_branches_work_at_once_than_they_may(rig: Rig) -> None:
    rig.script.fate = runs(one=Fate(waits=True))
    submit(rig, INLINE.with_spec(maxParallelBranches=1))
    rig.until_at_work(1)
    assert set(branches(rig)) == {"one"}
    rig.script.let_go()
    until_state(rig, "Complete")
    order = [branch_of(pod) for pod in rig.script.of_role(Role.RUN)]
    assert order == ["one", "two", "three"]


def test_suspending_a_fan_out_suspends_its_branches(rig: Rig) -> None:
    rig.script.fate = runs(one=Fate(waits=True), two=Fate(waits=True))
    submit(rig, INLINE)
    rig.until_at_work(2)
    rig.change(FAN_OUTS, "answers", {"spec": {"suspend": True}})
    until_state(rig, "Suspended")
    assert all(
        job["spec"]["suspend"] for name, job in rig.jobs().items() if name in ("answers-one-run", "answers-two-run")
    )
    rig.script.let_go()
    rig.change(FAN_OUTS, "answers", {"spec": {"suspend": False}})
    until_state(rig, "Complete")


def test_a_cancelled_fan_out_joins_what_is_done(rig: Rig) -> None:
    rig.script.fate = runs(one=Fate(waits=True))
    submit(rig, INLINE.with_spec(maxParallelBranches=2))
    rig.eventually(
        lambda: branches(rig).get("two", {}).get("status", {}).get("completionTime"), "the second branch done"
    )
    rig.change(FAN_OUTS, "answers", {"spec": {"cancel": True}})
    found = until_state(rig, "Cancelled")
    assert "Joined" in {c.type for c in found.status.conditions if c.status == "True"}
    assert found.status.output is not None
    assert found.status.output.manifest is not None


def test_deleting_a_fan_out_takes_everything_along(rig: Rig) -> None:
    submit(rig, INLINE)
    until_state(rig, "Complete")
    assert rig.all(BATCHES)
    rig.delete(FAN_OUTS, "answers")
    rig.eventually(lambda: not rig.all(BATCHES) and not rig.all(JOBS), "all of it gone")


def test_an_operator_that_is_killed_goes_on_where_it_was(rig: Rig, operator: OperatorProcess) -> None:
    rig.script.fate = runs(one=Fate(waits=True))
    submit(rig, INLINE)
    rig.until_at_work(1)
    operator.kill()
    rig.script.let_go()
    operator.start().wait_ready()
    until_state(rig, "Complete")
    assert len(rig.script.of_role(Role.RUN)) == 3, "no branch was run twice"


def test_a_when_that_does_not_parse_is_said_in_the_status(rig: Rig) -> None:
    submit(rig, INLINE.with_branch("two", when="size(record.text) >"))
    found = until_state(rig, "InvalidSpec")
    assert message(found, ConditionType.FAILED).startswith(
        "InvalidSpec: spec.branches[1].when: is not an expression in CEL"
    )
    assert not rig.all(BATCHES)
