"""A cascade: stages follow each other, each on what those before it have not settled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builders import a_job, gave_up
from fanout_builders import FanOutBuilder, a_child, a_fan_out, ended, joined, look_at
from headrace.api import labels
from headrace.api.base import InvalidSpec
from headrace.api.batchstatus import Usage
from headrace.api.cascade import StageStatus
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import Role, SelectReport, WorkerConfig
from headrace.core.fanout.observed import FanOutObserved
from headrace.core.fanout.reconcile import reconcile
from headrace.core.observed import WorkerReport

THREE = (
    a_fan_out("small", "other", "large", "huge")
    .with_spec(aggregation={"type": "vote"}, cascade={"minAgreementPercent": 100}, output={"uri": "s3://out/f/"})
    .with_branch("large", stage=1)
    .with_branch("huge", stage=2)
)
RUNNING = THREE.validated()
FIRST = (ended("small"), ended("other"))
SELECTED = {"uri": "s3://out/f/_headrace/stages/1.jsonl", "format": "jsonl", "objects": "All"}
"""The input of the branches of stage 1."""
SELECTING = replace(a_job(Role.SELECT), name="answers-select-1")


def given(fan_out: FanOutBuilder, *records: int) -> FanOutBuilder:
    """With selections made: so many of a hundred records for stage 1, 2, and so on."""
    stages = (StageStatus(stage=n, records=some, spared=100 - some) for n, some in enumerate(records, 1))
    return fan_out.with_status(stages=tuple(stages))


def selected(stage: int, records: int) -> WorkerReport:
    """The word of a selection that has ended well."""
    report = SelectReport(stage=stage, records=records, spared=100 - records)
    return WorkerReport(Role.SELECT, report, final=True, exit_code=0)


def children(observed: FanOutObserved) -> list[str]:
    return [child["metadata"]["name"].removeprefix("answers-") for child in reconcile(observed).children or ()]


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(look_at(RUNNING), ["small", "other"], id="the first stage begins alone"),
        pytest.param(look_at(RUNNING, ended("small"), a_child("other")), ["small", "other"], id="and is waited for"),
        pytest.param(look_at(RUNNING, *FIRST), ["small", "other", "select-1"], id="then the records of the next one are selected"),
        pytest.param(
            look_at(RUNNING, ended("small", Reason.WORKER_FAILED), ended("other")), ["small", "other", "select-1"],
            id="also when a branch has failed: its records have an answer less",
        ),
        pytest.param(look_at(RUNNING.with_spec(suspend=True), *FIRST), ["small", "other"], id="but not while suspended"),
        pytest.param(
            look_at(RUNNING, *FIRST, jobs=[replace(SELECTING, complete=True)], reports=[selected(1, 7)]),
            ["small", "other", "select-1"], id="what was selected goes into the status first",
        ),
        pytest.param(look_at(given(RUNNING, 7), *FIRST), ["small", "other", "large"], id="the next stage begins"),
        pytest.param(
            look_at(given(RUNNING, 7), *FIRST, ended("large")), ["small", "other", "large", "select-2"], id="and so on",
        ),
        pytest.param(
            look_at(given(RUNNING, 7, 2), *FIRST, ended("large"), ended("huge")),
            ["small", "other", "large", "huge", "join"], id="at last all are joined",
        ),
        pytest.param(look_at(given(RUNNING, 0, 0), *FIRST), ["small", "other", "join"], id="at once when nothing is left to settle"),
        pytest.param(
            look_at(RUNNING.with_spec(cancel=True), *FIRST), ["small", "other", "join"], id="or when the fan-out is cancelled",
        ),
    ],
)  # fmt: skip
def test_reconcile_asks_for_the_children_of_a_cascade(observed: FanOutObserved, expected: list[str]) -> None:
    assert children(observed) == expected


def test_a_later_branch_reads_what_was_selected_for_it() -> None:
    *_, large = reconcile(look_at(given(RUNNING.with_branch("large", when="record.n > 1"), 7), *FIRST)).children or ()
    assert large["spec"]["input"] == {**SELECTED, "when": "record.n > 1"}


def test_files_become_objects_on_the_way_to_the_next_stage() -> None:
    fan_out = RUNNING.with_spec(input={"uri": "s3://in/*.md", "format": "text", "limit": 9})
    *_, large = reconcile(look_at(given(fan_out, 7), *FIRST)).children or ()
    assert large["spec"]["input"] == SELECTED


def test_a_later_branch_keeps_the_window_and_reads_what_was_selected_whenever_that_was_written() -> None:
    window = {"startTime": "2026-01-15T11:30:00Z", "endTime": "2026-01-15T12:00:00Z"}
    within = {"uri": "s3://in/*.md", "format": "text", "objects": "ModifiedInWindow", "window": window}
    *_, large = reconcile(look_at(given(RUNNING.with_spec(input=within), 7), *FIRST)).children or ()
    assert large["spec"]["input"] == {**SELECTED, "window": window}


def test_a_later_branch_fetches_media_as_the_first_ones_may() -> None:
    media = {"allowedHosts": ["images.example.org"]}
    fan_out = RUNNING.with_spec(input={"uri": "s3://in/records.jsonl", "format": "jsonl", "media": media})
    small, *_, large = reconcile(look_at(given(fan_out, 7), *FIRST)).children or ()
    assert large["spec"]["input"]["media"] == small["spec"]["input"]["media"]
    assert large["spec"]["input"]["media"]["allowedHosts"] == media["allowedHosts"]


def test_parts_are_not_split_again_for_a_later_branch() -> None:
    split = {"by": "chunks", "size": 100}
    fan_out = RUNNING.with_spec(input={"uri": "s3://in/*.md", "format": "text"}, split=split)
    small, other, large = reconcile(look_at(given(fan_out, 7), *FIRST)).children or ()
    assert [branch["spec"]["input"]["split"]["size"] for branch in (small, other)] == [100, 100]
    assert large["spec"]["input"] == SELECTED
    *_, job = reconcile(look_at(fan_out, *FIRST)).children or ()
    (container,) = job["spec"]["template"]["spec"]["containers"]
    config = WorkerConfig.model_validate_json(container["env"][0]["value"])
    assert container["args"] == ["select"]
    assert config.input.split == fan_out.build().spec.split, "what is selected are parts"


def test_a_cascade_that_is_complete_without_a_branch_can_be_retried_for_it() -> None:
    fan_out = given(RUNNING.policy("BestEffort"), 7, 2)
    branches = (ended("small", Reason.WORKER_FAILED), *(ended(name) for name in ("other", "large", "huge")))
    jobs = [a_job(Role.JOIN, complete=True)]
    at_end = reconcile(look_at(fan_out, *branches, jobs=jobs, reports=[joined()])).status
    assert at_end.is_true(ConditionType.COMPLETE)
    asked = fan_out.with_status(**dict(at_end)).asked_to_retry()
    begun = reconcile(look_at(asked, *branches)).status
    assert (begun.finished, begun.stages) == (False, at_end.stages), "a selection is kept"
    small, *others = reconcile(look_at(asked.with_status(**dict(begun)), *branches)).children or ()
    assert small["metadata"]["annotations"] == {labels.RETRY: "1"}
    assert [it["metadata"]["name"] for it in others] == ["answers-other", "answers-large", "answers-huge"]


def test_a_selection_is_told_of_the_stages_before_it_alone() -> None:
    *_, job = reconcile(look_at(given(RUNNING, 7), *FIRST, ended("large"))).children or ()
    (container,) = job["spec"]["template"]["spec"]["containers"]
    config = WorkerConfig.model_validate_json(container["env"][0]["value"]).fan_out
    assert config is not None
    assert (container["args"], config.stage) == (["select"], 2)
    assert [(branch.name, branch.stage) for branch in config.branches] == [("small", 0), ("other", 0), ("large", 1)]
    assert config.cascade == RUNNING.build().spec.cascade


def test_a_selection_is_written_down_and_looked_at_again_at_once() -> None:
    plan = reconcile(look_at(RUNNING, *FIRST, jobs=[SELECTING], reports=[selected(1, 7)]))
    assert plan.status.stages == (StageStatus(stage=1, records=7, spared=93),)
    assert plan.look_again_after is not None
    assert plan.look_again_after.total_seconds() == 0


def test_where_nothing_is_left_no_later_stage_is_asked() -> None:
    plan = reconcile(look_at(RUNNING, *FIRST, jobs=[SELECTING], reports=[selected(1, 0)]))
    assert [(it.stage, it.records, it.spared) for it in plan.status.stages] == [(1, 0, 100), (2, 0, 100)]
    observed = look_at(
        RUNNING.with_status(stages=plan.status.stages),
        *FIRST,
        jobs=[a_job(Role.JOIN, complete=True)],
        reports=[joined()],
    )
    done = reconcile(observed).status
    assert done.is_true(ConditionType.COMPLETE)
    assert [(it.name, it.state, it.reason) for it in done.branches[2:]] == [
        ("large", "NoRecords", "not_escalated"), ("huge", "NoRecords", "not_escalated")
    ]  # fmt: skip
    assert done.branch_counts.succeeded == 4


def test_a_selection_that_cannot_be_made_ends_the_fan_out_and_a_retry_makes_it_again() -> None:
    told = gave_up(Role.SELECT, "BranchOutputDamaged", "it is not what was committed")
    failed = reconcile(look_at(RUNNING, *FIRST, jobs=[replace(SELECTING, failed=True)], reports=[told])).status
    condition = failed.condition(ConditionType.FAILED)
    assert condition is not None
    assert condition.reason == Reason.WORKER_FAILED
    assert (
        "records of stage 1 could not be selected: BranchOutputDamaged: it is not what was committed"
        in condition.message
    )
    again = replace(RUNNING, status=failed).asked_to_retry()
    again = replace(again, status=reconcile(look_at(again, *FIRST)).status)
    assert children(look_at(again, *FIRST)) == ["small", "other", "select-1-r1"]


def with_usage(child: InferenceBatch, tokens: int) -> InferenceBatch:
    """A branch that has used so many tokens for its hundred records."""
    usage = Usage(prompt_tokens=tokens // 4, completion_tokens=tokens - tokens // 4)
    return child.model_copy(update={"status": child.status.model_copy(update={"usage": usage})})


@pytest.mark.parametrize(
    ("fan_out", "branches", "saved"),
    [
        pytest.param(RUNNING, FIRST, None, id="unknown before the first selection"),
        pytest.param(a_fan_out().validated(), (), None, id="nothing to save without a cascade"),
        pytest.param(
            given(RUNNING, 20, 0), [*(with_usage(it, 1000) for it in FIRST), with_usage(ended("large"), 5000)],
            80 * 50 + 100 * (7000 // 300) + 100 // 3, id="what a record has cost, or the stages before",
        ),
        pytest.param(given(RUNNING, 0, 0), [with_usage(it, 1000) for it in FIRST], 2 * 100 * 10, id="all of two stages"),
    ],
)  # fmt: skip
def test_saved_tokens_are_those_of_the_records_that_later_stages_were_spared(
    fan_out: FanOutBuilder, branches: list[InferenceBatch], saved: int | None
) -> None:
    assert reconcile(look_at(fan_out, *branches)).status.saved_tokens == saved


@pytest.mark.parametrize(
    ("fan_out", "field", "said"),
    [
        pytest.param(a_fan_out("a", "b").with_branch("b", stage=1), "spec", "cascade must be set", id="a stage without a cascade"),
        pytest.param(
            a_fan_out("a").with_spec(aggregation={"type": "vote"}, cascade={"minAgreementPercent": 50}), "spec",
            "cascade must be set when a branch has a stage after 0, and only then", id="a cascade without a stage",
        ),
        pytest.param(THREE.with_branch("huge", stage=5), "spec.branches", "without a gap", id="a gap between stages"),
        pytest.param(
            THREE.with_branch("small", stage=1).with_branch("other", stage=1), "spec.branches", "numbered from 0", id="no first stage",
        ),
        pytest.param(
            THREE.with_spec(aggregation={"type": "concat"}), "spec.cascade.minAgreementPercent", "must be vote", id="no vote",
        ),
        pytest.param(THREE.with_spec(cascade={"minScore": 1}), "spec.cascade.minScore", "must be bestOf", id="scores without a scorer"),
        pytest.param(
            THREE.with_spec(aggregation={"type": "reduce"}, split={"by": "lines", "size": 1}), "spec.cascade.minAgreementPercent",
            "must be vote", id="parts that are put together before they are settled",
        ),
        pytest.param(THREE.with_spec(cascade={}), "spec.cascade", "exactly one of", id="no threshold"),
        pytest.param(THREE.policy("Any"), "spec.completionPolicy.mode", "may not be Any", id="a race between stages"),
    ],
)  # fmt: skip
def test_a_cascade_that_cannot_be_is_refused(fan_out: FanOutBuilder, field: str, said: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        fan_out.build()
    (error,) = refused.value.errors
    assert (error.field, said in error.message) == (field, True), refused.value


def test_every_round_of_a_cascade_comes_to_an_end() -> None:
    """Whatever each branch comes to, and however many records are left, there is always a next step until it has ended."""
    for reason in (None, Reason.WORKER_FAILED, Reason.INPUT_INVALID, Reason.DEADLINE_EXCEEDED):
        for left in (0, 3):
            status, seen = _lived(reason, left)
            assert status.finished, (reason, left)
            assert ("answers-large" in seen) == (left > 0)


def _lived(reason: Reason | None, left: int) -> tuple[Any, set[str]]:
    fan_out, seen = RUNNING, set()
    done: dict[str, InferenceBatch] = {}
    reports: list[WorkerReport] = []
    for _ in range(20):
        plan = reconcile(look_at(fan_out, *done.values(), reports=reports))
        fan_out = replace(fan_out, status=plan.status)
        if plan.status.finished:
            break
        for child in plan.children or ():
            name = child["metadata"]["name"]
            seen.add(name)
            if child["kind"] == "InferenceBatch":
                done[name] = ended(name.removeprefix("answers-"), reason)
            elif "select" in name:
                reports = [selected(int(name[-1]), left)]
            elif name.endswith("join"):
                reports = [joined()]
    return fan_out.status, seen


def test_a_later_stage_does_not_lag_behind_for_being_slower() -> None:
    quick = (ended("small", seconds=10), ended("other", seconds=12))
    observed = look_at(given(RUNNING, 7, 2), *quick, ended("large", seconds=500), ended("huge", seconds=900))
    assert reconcile(observed).status.stragglers == ()
