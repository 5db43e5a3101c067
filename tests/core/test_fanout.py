"""The life of a FanOutJob, as a table: what was observed, and what follows."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import NOON, PLACE, a_job, gave_up, planned
from fanout_builders import a_child, a_fan_out, ended, joined, look_at, lost_records, took_nothing
from headrace.api import labels
from headrace.api.batchstatus import Usage
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.meta import ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import PlanReport, Role, WorkerConfig
from headrace.core import edits
from headrace.core.changes import child_patch
from headrace.core.fanout.observed import FanOutObserved
from headrace.core.fanout.reconcile import reconcile
from headrace.core.observed import WorkerReport
from headrace.core.volumes import Volumes

THREE = a_fan_out("one", "two", "three")
RUNNING = THREE.validated()
DONE = tuple(ended(name) for name in ("one", "two", "three"))
JOIN = a_job(Role.JOIN, complete=True)


def children(observed: FanOutObserved) -> dict[str, Any]:
    """Names of the desired children, and of InferenceBatches the word for what they are told."""
    found = {}
    for child in reconcile(observed).children or ():
        spec = child["spec"] if child["kind"] == "InferenceBatch" else {}
        words = ("cancel", "suspend")
        found[child["metadata"]["name"]] = next((word for word in words if spec.get(word)), "")
    return found


def conditions(observed: FanOutObserved) -> dict[str, tuple[str, str]]:
    """Status and reason of each condition."""
    return {c.type: (c.status.value, c.reason) for c in reconcile(observed).status.conditions}


def end(observed: FanOutObserved) -> tuple[str, str]:
    """Reason and message of the condition that says how it has ended."""
    status = reconcile(observed).status
    kinds = (ConditionType.COMPLETE, ConditionType.FAILED)
    found = next(status.condition(kind) for kind in kinds if status.is_true(kind))
    assert found is not None
    return found.reason, found.message


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(look_at(THREE), {"answers-plan": ""}, id="first the input is read"),
        pytest.param(look_at(RUNNING), {"answers-one": "", "answers-two": "", "answers-three": ""}, id="then all branches are made"),
        pytest.param(look_at(RUNNING.with_spec(maxParallelBranches=1)), {"answers-one": ""}, id="but no more than may be at once"),
        pytest.param(
            look_at(RUNNING.with_spec(maxParallelBranches=1), ended("one")), {"answers-one": "", "answers-two": ""},
            id="the next one follows when one has ended",
        ),
        pytest.param(
            look_at(RUNNING.with_spec(maxParallelBranches=1), ended("one", Reason.WORKER_FAILED), a_child("two")),
            {"answers-one": "", "answers-two": ""}, id="a branch that has failed makes room too, and is kept",
        ),
        pytest.param(
            look_at(RUNNING.with_spec(maxParallelBranches=1), a_child("one"), a_child("two")),
            {"answers-one": "", "answers-two": "suspend"}, id="lowering the limit parks the last one",
        ),
        pytest.param(look_at(RUNNING.with_spec(suspend=True)), {}, id="while suspended none is made"),
        pytest.param(
            look_at(RUNNING.with_spec(suspend=True), ended("one"), a_child("two")), {"answers-one": "", "answers-two": "suspend"},
            id="while suspended those that work are suspended",
        ),
        pytest.param(
            look_at(RUNNING.with_spec(cancel=True), ended("one"), a_child("two")), {"answers-one": "", "answers-two": "cancel"},
            id="a cancellation reaches those that work, and makes no more",
        ),
        pytest.param(
            look_at(RUNNING.policy("Any"), a_child("one"), ended("two")), {"answers-one": "cancel", "answers-two": ""},
            id="when one is enough the losers are cancelled",
        ),
        pytest.param(
            look_at(RUNNING.policy("Any").with_branch("one", required=True), a_child("one"), ended("two"), a_child("three")),
            {"answers-one": "", "answers-two": "", "answers-three": ""}, id="unless one that is required has not succeeded yet",
        ),
        pytest.param(
            look_at(RUNNING.with_spec(completionDeadlineSeconds=99), a_child("one", completionDeadlineSeconds=99)),
            {"answers-one": ""}, id="after the deadline none is made; those that work know theirs",
        ),
        pytest.param(
            look_at(RUNNING, *DONE), {"answers-one": "", "answers-two": "", "answers-three": "", "answers-join": ""},
            id="when all have ended they are joined",
        ),
    ],
)  # fmt: skip
def test_reconcile_asks_for_children(observed: FanOutObserved, expected: dict[str, str]) -> None:
    assert children(observed) == expected


def test_a_place_bounds_the_branches_that_run_a_model_there_and_no_others() -> None:
    """A branch that hangs at some endpoint takes no place from those that work."""
    local = {"engine": {"name": "transformers"}, "model": {"name": "m", "source": {"package": {"module": "m"}}}}
    fan_out = (
        a_fan_out("one", "two", "three", "four").validated().with_branch("one", **local).with_branch("two", **local)
    )
    narrow = replace(look_at(fan_out), installation=replace(PLACE, max_parallel_branches=1))
    assert set(children(narrow)) == {"answers-one", "answers-three", "answers-four"}
    assert set(children(replace(narrow, fan_out=fan_out.with_spec(maxParallelBranches=2).build()))) == {
        "answers-one",
        "answers-three",
    }


def test_a_branch_is_an_inference_batch_of_its_own_on_the_common_input() -> None:
    fan_out = RUNNING.with_spec(
        input={"uri": "s3://in/x", "format": "jsonl", "prompt": {"template": "{{ a }}"}}, output={"uri": "s3://out/f/"}
    ).with_branch("two", prompt={"template": "{{ b }}"}, when="has(record.b)", shards=3, weight=2)
    one, two, _ = reconcile(look_at(fan_out)).children or ()
    assert (one["kind"], one["metadata"]["labels"][labels.BRANCH]) == ("InferenceBatch", "one")
    assert one["metadata"]["ownerReferences"][0] | {"uid": ""} == {
        "apiVersion": "headrace.dev/v1alpha1", "kind": "FanOutJob", "name": "answers", "uid": "", "controller": True,
        "blockOwnerDeletion": True,
    }  # fmt: skip
    assert one["spec"]["input"]["prompt"] == {"template": "{{ a }}"}
    assert two["spec"]["input"] == {
        "uri": "s3://in/x", "format": "jsonl", "prompt": {"template": "{{ b }}"}, "when": "has(record.b)", "objects": "All"
    }  # fmt: skip
    assert two["spec"]["output"]["uri"] == "s3://out/f/branches/two/"
    assert two["spec"]["shards"] == 3
    InferenceBatch.parse(two)


def test_branches_read_the_parts_of_images_that_the_plan_has_written_down() -> None:
    source = {"uri": "s3://in/x", "format": "jsonl", "limit": 9, "media": {"allowedHosts": ["a.example"]}}
    fan_out = RUNNING.with_spec(
        input=source, output={"uri": "s3://out/f/"}, split={"by": "tiles", "size": 64}
    ).with_branch("two", prompt={"template": "{{ text }}"}, when="record.part.y == 0")
    one, two, _ = reconcile(look_at(fan_out)).children or ()
    parts = {"uri": "s3://out/f/_headrace/parts/uid-answers.jsonl", "format": "jsonl", "objects": "All"}
    assert one["spec"]["input"] == parts
    assert two["spec"]["input"] == {**parts, "prompt": {"template": "{{ text }}"}, "when": "record.part.y == 0"}
    (plan,) = (child for child in reconcile(look_at(fan_out.with_status(conditions=()))).children or ())
    told = WorkerConfig.parse(json.loads(plan["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"]))
    assert (told.input.uri, told.records.uri) == ("s3://in/x", parts["uri"]), "and so does its own join"


LOSER = ended("one", Reason.CANCELLED, cancel=True)
LOST_TWO = (ended("one"), ended("two", Reason.WORKER_FAILED), ended("three"))
LOST_TWO_AND_THREE = (ended("one"), ended("two", Reason.WORKER_FAILED), ended("three", Reason.INPUT_INVALID))


@pytest.mark.parametrize(
    ("observed", "reason", "said"),
    [
        pytest.param(look_at(RUNNING, *DONE, jobs=[JOIN], reports=[joined(100)]), "RecordsProcessed", "100 of 100",
                     id="all have succeeded"),
        pytest.param(look_at(RUNNING, *DONE, jobs=[JOIN], reports=[joined(98, 2)]), "RecordsProcessedWithErrors", "2 have none",
                     id="some records have no answer"),
        pytest.param(look_at(RUNNING, *LOST_TWO, jobs=[JOIN], reports=[joined()]), "BranchesFailed", "two (WorkerFailed)",
                     id="All: one has failed"),
        pytest.param(look_at(RUNNING.policy("Quorum", 2), *LOST_TWO, jobs=[JOIN], reports=[joined()]), "PartiallySucceeded",
                     "without two (WorkerFailed)", id="Quorum: enough have succeeded"),
        pytest.param(look_at(RUNNING.policy("Quorum", 2), *LOST_TWO_AND_THREE, jobs=[JOIN], reports=[joined()]), "BranchesFailed",
                     "1 of 3 branches have succeeded", id="Quorum: not enough have"),
        pytest.param(look_at(RUNNING.policy("Quorum", 2).with_branch("two", required=True), *LOST_TWO, jobs=[JOIN], reports=[joined()]),
                     "BranchesFailed", "two (WorkerFailed)", id="Quorum: enough have, but not one that is required"),
        pytest.param(look_at(RUNNING.policy("BestEffort"), *LOST_TWO_AND_THREE, jobs=[JOIN], reports=[joined()]), "PartiallySucceeded",
                     "without two (WorkerFailed), three (InputInvalid)", id="BestEffort: one is left"),
        pytest.param(look_at(RUNNING.policy("BestEffort"), *(ended(n, Reason.WORKER_FAILED) for n in ("one", "two", "three"))),
                     "BranchesFailed", "0 of 3 branches", id="BestEffort: none is left, so nothing is joined"),
        pytest.param(look_at(RUNNING.policy("Any"), LOSER, ended("two"), jobs=[JOIN], reports=[joined()]),
                     "PartiallySucceeded", "without one (Cancelled), three (NotStarted)", id="Any: one was enough"),
        pytest.param(look_at(RUNNING.with_spec(cancel=True), ended("one", Reason.CANCELLED, cancel=True), jobs=[JOIN], reports=[joined()]),
                     "Cancelled", "without one (Cancelled)", id="cancelled"),
        pytest.param(look_at(RUNNING.with_spec(completionDeadlineSeconds=99), ended("one"), ended("two", Reason.DEADLINE_EXCEEDED),
                             jobs=[JOIN], reports=[joined()]),
                     "DeadlineExceeded", "three (NotStarted)", id="the deadline has passed"),
        pytest.param(look_at(RUNNING, ended("one"), took_nothing("two"), ended("three"), jobs=[JOIN], reports=[joined()]),
                     "RecordsProcessed", "", id="a branch that no record is routed to has done all its work"),
        pytest.param(look_at(RUNNING, *DONE, jobs=[a_job(Role.JOIN, failed=True)], reports=[gave_up(Role.JOIN, "OutputFull", "make room")]),
                     "JoinFailed", "OutputFull: make room", id="the join could not be done"),
        pytest.param(look_at(THREE, jobs=[a_job(Role.PLAN, failed=True)], reports=[gave_up(Role.PLAN, "InputUnreadable", "no")]),
                     "WorkerFailed", "InputUnreadable: no", id="the input could not be read"),
        pytest.param(look_at(THREE.with_spec(cancel=True)), "Cancelled", "", id="cancelled before anything was begun"),
    ],
)  # fmt: skip
def test_reconcile_ends_as_the_policy_says(observed: FanOutObserved, reason: str, said: str) -> None:
    found, message = end(observed)
    assert (found, said in message) == (reason, True), message


@pytest.mark.parametrize(
    ("child", "joins"),
    [
        pytest.param(ended("one"), True, id="complete"),
        pytest.param(ended("one", Reason.TOO_MANY_FAILED_RECORDS), True, id="given up with its books closed"),
        pytest.param(ended("one", Reason.DEADLINE_EXCEEDED), True, id="out of time"),
        pytest.param(ended("one", Reason.WORKER_FAILED), False, id="left as it was for a retry"),
        pytest.param(ended("one", Reason.CANCELLED, cancel=True), False, id="cancelled because another had won"),
    ],
)
def test_the_join_is_told_which_branches_have_left_an_output(child: InferenceBatch, joins: bool) -> None:
    observed = look_at(RUNNING.policy("Any"), child, ended("two"), ended("three", Reason.WORKER_FAILED))
    job = (reconcile(observed).children or ())[-1]
    config = json.loads(job["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"])
    told = {branch["name"]: branch["joined"] for branch in config["fanOut"]["branches"]}
    assert told == {"one": joins, "two": True, "three": False}


def test_the_join_is_told_which_answers_each_record_must_have() -> None:
    fan_out = RUNNING.with_spec(completionPolicy={"minAnswers": 2}).with_branch("two", required=True)
    job = (reconcile(look_at(fan_out, *DONE)).children or ())[-1]
    config = WorkerConfig.model_validate_json(job["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"])
    assert config.fan_out is not None
    assert config.fan_out.min_answers == 2
    assert [branch.name for branch in config.fan_out.branches if branch.required] == ["two"]


def has_used(child: InferenceBatch, tokens: int) -> InferenceBatch:
    """The same, after so many tokens."""
    usage = Usage(prompt_tokens=1, completion_tokens=tokens, gpu_seconds=tokens)
    return child.model_copy(update={"status": child.status.model_copy(update={"usage": usage})})


def test_what_branches_have_used_for_answers_that_do_not_count_is_told_as_wasted() -> None:
    lost = has_used(ended("one", Reason.CANCELLED, cancel=True), 30)
    status = reconcile(look_at(RUNNING.policy("Any"), lost, has_used(ended("two"), 70), jobs=[JOIN])).status
    assert (status.usage.completion_tokens, status.wasted.completion_tokens) == (100, 30)
    assert status.wasted.gpu_seconds == 30
    at_work = reconcile(look_at(RUNNING, has_used(a_child("one"), 30), has_used(ended("two"), 70))).status
    assert at_work.wasted == Usage(), "what is not over may count yet"


def test_records_that_no_branch_has_taken_are_joined_to_error_lines() -> None:
    nothing = tuple(took_nothing(name) for name in ("one", "two", "three"))
    job = (reconcile(look_at(RUNNING, *nothing)).children or ())[-1]
    assert job["metadata"]["name"] == "answers-join"
    told = json.loads(job["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"])["fanOut"]["branches"]
    assert {(branch["joined"], branch["reason"]) for branch in told} == {(False, "not_routed")}
    at_end = look_at(RUNNING, *nothing, jobs=[JOIN], reports=[joined(succeeded=0, failed=100)])
    assert end(at_end) == ("RecordsProcessedWithErrors", "0 of 100 records have an answer, 100 have none")


def test_a_deadline_of_the_whole_is_one_of_each_branch() -> None:
    fan_out = RUNNING.with_spec(completionDeadlineSeconds=600).with_branch("two", completionDeadlineSeconds=30)
    made = reconcile(look_at(fan_out, after=100)).children or ()
    assert [child["spec"]["completionDeadlineSeconds"] for child in made] == [500, 30, 500]
    child = a_child("one", completionDeadlineSeconds=598)
    (kept, *_) = reconcile(look_at(fan_out, child, after=100)).children or ()
    assert kept["spec"]["completionDeadlineSeconds"] == 598, "a second or two are not worth a write"


def test_a_retry_runs_only_what_has_failed_and_joins_again() -> None:
    failed = RUNNING.with_condition(ConditionType.FAILED, ConditionStatus.TRUE, Reason.BRANCHES_FAILED).asked_to_retry()
    first = reconcile(look_at(failed, *LOST_TWO, jobs=[JOIN]))
    by_name = {child["metadata"]["name"]: child for child in first.children or ()}
    assert set(by_name) == {"answers-one", "answers-two", "answers-three"}, "the join of the last round goes"
    known = {child.metadata.name: child.to_object() for child in LOST_TWO}
    patches = {name: child_patch(known[name], child) for name, child in by_name.items()}
    again = {"metadata": {"labels": {labels.ROUND: "1"}, "annotations": {labels.RETRY: "1"}}}
    assert patches == {"answers-one": None, "answers-two": again, "answers-three": None}
    assert not first.status.finished
    began = failed.with_status(**dict(first.status))
    repaired = (ended("one"), ended("two", round_=1), ended("three"))
    assert "answers-join-r1" in children(look_at(began, *repaired))


def test_a_fan_out_that_is_complete_without_a_branch_can_be_retried_for_it() -> None:
    quorum = RUNNING.policy("Quorum", 2)
    at_end = reconcile(look_at(quorum, *LOST_TWO, jobs=[JOIN], reports=[joined()])).status
    done = quorum.with_status(**dict(at_end))
    assert (at_end.is_true(ConditionType.COMPLETE), edits.retry(done.build()).annotations) == (
        True,
        {labels.RETRY: "1"},
    )
    asked = done.asked_to_retry()
    first = reconcile(look_at(asked, *LOST_TWO, jobs=[JOIN]))
    assert (first.status.finished, first.status.completion_time) == (False, None)
    retrying = asked.with_status(**dict(first.status))
    assert "answers-join-r1" not in children(look_at(retrying, *LOST_TWO))
    repaired = (ended("one"), ended("two", round_=1), ended("three"))
    join_again = replace(JOIN, name="answers-join-r1", round=1)
    ended_well = look_at(retrying, *repaired, jobs=[join_again], reports=[joined()])
    assert end(ended_well) == ("RecordsProcessed", "100 of 100 records have an answer, 0 have none")
    whole = retrying.with_status(**dict(reconcile(ended_well).status)).build()
    with pytest.raises(edits.EditRefused, match="answers is complete: there is nothing to retry"):
        edits.retry(whole)


def test_a_retry_redoes_the_failed_records_of_branches_that_are_complete() -> None:
    """Only the branch that has lost some goes on; the others keep all that they have."""
    branches = (ended("one"), lost_records(ended("two")), ended("three"))
    at_end = reconcile(look_at(RUNNING, *branches, jobs=[JOIN], reports=[joined()])).status
    assert at_end.is_true(ConditionType.COMPLETE)
    done = RUNNING.with_status(**dict(at_end))
    assert edits.retry(done.build()).annotations == {labels.RETRY: "1"}
    asked = done.asked_to_retry()
    begun = reconcile(look_at(asked, *branches, jobs=[JOIN]))
    patches = {
        child["metadata"]["name"]: child_patch(known.to_object(), child)
        for child, known in zip(begun.children or (), branches, strict=True)
    }
    again = {"metadata": {"labels": {labels.ROUND: "1"}, "annotations": {labels.RETRY: "1"}}}
    assert patches == {"answers-one": None, "answers-two": again, "answers-three": None}
    retrying = asked.with_status(**dict(begun.status))
    assert "answers-join-r1" not in children(look_at(retrying, *branches)), "it waits for the branch"
    still = (ended("one"), lost_records(ended("two", round_=1), 3), ended("three"))
    assert "answers-join-r1" in children(look_at(retrying, *still)), "and not for ever"


def test_a_retry_of_a_race_does_not_cancel_its_winner() -> None:
    race = RUNNING.policy("Any")
    lost = ended("two", Reason.CANCELLED, cancel=True), ended("three", Reason.CANCELLED, cancel=True)
    branches = (lost_records(ended("one")), *lost)
    at_end = reconcile(look_at(race, *branches, jobs=[JOIN], reports=[joined()])).status
    asked = race.with_status(**dict(at_end)).asked_to_retry()
    begun = look_at(asked, *branches)
    assert children(begun)["answers-one"] == ""
    retrying = asked.with_status(**dict(reconcile(begun).status))
    assert children(look_at(retrying, *branches))["answers-one"] == ""
    assert "answers-join-r1" in children(look_at(retrying, ended("one", round_=1), *lost))


def test_branches_of_a_retry_have_the_time_of_the_retry() -> None:
    late = RUNNING.with_spec(completionDeadlineSeconds=600)
    branches = (ended("one"), ended("two", Reason.DEADLINE_EXCEEDED, completionDeadlineSeconds=600), ended("three"))
    failed = late.with_condition(ConditionType.FAILED, ConditionStatus.TRUE, Reason.DEADLINE_EXCEEDED).asked_to_retry()
    begun = failed.with_status(**dict(reconcile(look_at(failed, *branches, after=3600)).status))
    (_, two, _) = reconcile(look_at(begun, *branches, after=3601)).children or ()
    assert two["spec"]["completionDeadlineSeconds"] == 600


def test_branches_that_have_lost_a_race_are_not_retried() -> None:
    race = RUNNING.policy("Any")
    losers = (ended("one"), ended("two", Reason.CANCELLED, cancel=True), ended("three", Reason.CANCELLED, cancel=True))
    at_end = reconcile(look_at(race, *losers, jobs=[JOIN], reports=[joined()])).status
    with pytest.raises(edits.EditRefused, match="nothing to retry"):
        edits.retry(race.with_status(**dict(at_end)).build())


def test_a_branch_that_fails_in_its_retry_is_not_tried_for_ever() -> None:
    retrying = RUNNING.with_status(retries=1).asked_to_retry()
    again = ended("two", Reason.WORKER_FAILED, round_=1)
    assert "answers-join-r1" in children(look_at(retrying, ended("one"), again, ended("three")))


@pytest.mark.parametrize(
    ("spec", "field", "said"),
    [
        pytest.param({"branches": [{"name": "a", "model": {"name": "m"}, "when": "size(record.x"}]}, "spec.branches[0].when",
                     "not an expression in CEL", id="a when that does not parse"),
        pytest.param({"branches": [{"name": "a", "model": {"name": "m"}, "prompt": {"template": "{{ x"}}]},
                     "spec.branches[0].prompt.template", "line 1", id="a template that does not parse"),
        pytest.param({"aggregation": {"type": "bestOf", "bestOf": {"scorers": [{"regex": {"pattern": "("}}]}}},
                     "spec.aggregation.bestOf.scorers[0].regex.pattern", "not a regular expression", id="a pattern that is none"),
        pytest.param({"aggregation": {"type": "bestOf", "bestOf": {"scorers": [{"jsonSchema": {"schema": {"type": "strin"}}}]}}},
                     "spec.aggregation.bestOf.scorers[0].jsonSchema.schema", "not a JSON Schema", id="a JSON Schema that is none"),
        pytest.param({"aggregation": {"type": "bestOf", "bestOf": {"scorers": [{"jsonSchema": {"schema": {"$ref": "http://x"}}}]}}},
                     "spec.aggregation.bestOf.scorers[0].jsonSchema.schema", "refers to http://x", id="a JSON Schema that is elsewhere"),
        pytest.param({"aggregation": {"type": "vote"}, "branches": [{"name": "a", "model": {"name": "m", "task": "embedding"}}]},
                     "spec.branches[0].model.task", "must be chat or completion", id="a vote on vectors"),
    ],
)  # fmt: skip
def test_reconcile_refuses_what_no_schema_can_know(spec: dict[str, Any], field: str, said: str) -> None:
    reason, message = end(look_at(THREE.with_spec(**spec)))
    assert (reason, message.startswith(f"{field}: "), said in message) == ("InvalidSpec", True, True), message


INLINE = {"inline": [{"custom_id": "a", "text": "x\ny"}], "format": "jsonl"}
SPLIT = {"by": "lines", "size": 1}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({"input": INLINE}, ["answers-input"], id="the core itself reads them"),
        pytest.param({"input": INLINE, "split": SPLIT}, ["answers-input", "answers-plan"], id="a pod splits them"),
        pytest.param({"input": {**INLINE, "prompt": {"template": "{{ text | upper }}"}}}, ["answers-input", "answers-plan"],
                     id="a pod runs their template"),
    ],
)  # fmt: skip
def test_inline_records_are_read_where_it_is_safe(spec: dict[str, Any], expected: list[str]) -> None:
    planning = look_at(THREE.with_spec(**spec))
    assert list(children(planning)) == expected
    plan_uri = Volumes.of(planning.own_work.batch, planning.installation).plan_uri
    assert ("answers-plan" in expected) == ("/_headrace/" in plan_uri), "the join looks where the plan was written"


def test_parts_are_counted_as_records_until_they_are_reduced() -> None:
    """All branches split alike; the fan-out counts what its output will have."""
    parts = WorkerReport(Role.PLAN, PlanReport(records=12, parents=5, shards=1), final=True, exit_code=0)
    split = THREE.with_spec(split=SPLIT)
    for aggregation, records in (("concat", 12), ("reduce", 5)):
        asked = split.with_spec(aggregation={"type": aggregation})
        plan = reconcile(look_at(asked, jobs=[a_job(Role.PLAN, complete=True)], reports=[parts]))
        assert plan.status.records.total == plan.status.records.pending == records
        valid = plan.status.condition(ConditionType.INPUT_VALIDATED)
        assert valid is not None
        assert valid.message == "12 parts of 5 records for 3 branches"
    branches = reconcile(look_at(split.validated())).children or ()
    assert [child["spec"]["input"]["split"]["by"] for child in branches] == ["lines"] * 3


ENDS = st.sampled_from(
    [None, Reason.WORKER_FAILED, Reason.CANCELLED, Reason.TOO_MANY_FAILED_RECORDS, Reason.INVALID_SPEC]
)
POLICIES = st.sampled_from([("All", None), ("Quorum", 2), ("BestEffort", None)])


@given(st.lists(ENDS, min_size=3, max_size=3), POLICIES, st.permutations(["one", "two", "three"]))
def test_the_order_in_which_branches_end_does_not_change_the_end(
    reasons: list[Reason | None], policy: tuple[str, int | None], order: list[str]
) -> None:
    """A fan-out that sees its branches end one by one, in any order, says at last what one that sees them all at once says."""
    names = ["one", "two", "three"]
    final = {
        name: ended(name, reason, seconds=60 + i) for i, (name, reason) in enumerate(zip(names, reasons, strict=True))
    }
    fan_out = RUNNING.policy(*policy)
    for count in range(3):
        seen = [final[name] if name in order[:count] else a_child(name) for name in names]
        plan = reconcile(look_at(fan_out, *seen))
        assert not plan.status.finished
        fan_out = fan_out.with_status(**dict(plan.status))
    last = look_at(fan_out, *final.values(), jobs=[JOIN], reports=[joined()])
    at_once = look_at(RUNNING.policy(*policy), *final.values(), jobs=[JOIN], reports=[joined()])
    one, other = reconcile(last).status, reconcile(at_once).status
    assert one.finished
    assert (one.branches, one.branch_counts, one.records, one.evenness_percent, one.summary) == (
        other.branches, other.branch_counts, other.records, other.evenness_percent, other.summary
    )  # fmt: skip
    assert end(last) == end(at_once)


@given(
    st.lists(st.sampled_from(["none", "new", "done", "failed"]), min_size=3, max_size=3),
    st.integers(1, 3),
    st.booleans(),
)
def test_reconcile_twice_asks_for_nothing_new(states: list[str], limit: int, suspend: bool) -> None:
    makers: dict[str, Callable[[str], InferenceBatch]] = {
        "new": a_child,
        "done": ended,
        "failed": lambda name: ended(name, Reason.WORKER_FAILED),
    }
    seen = [makers[state](name) for name, state in zip(("one", "two", "three"), states, strict=True) if state != "none"]
    fan_out = RUNNING.with_spec(maxParallelBranches=limit, suspend=suspend)
    first = reconcile(look_at(fan_out, *seen))
    again = reconcile(look_at(fan_out.with_status(**dict(first.status)), *seen))
    assert (again.status, again.children, again.events) == (first.status, first.children, ())
    running = [c for c in first.children or () if c["kind"] == "InferenceBatch" and not c["spec"].get("suspend")]
    finished = {child.metadata.name for child in seen if child.status.finished}
    assert len([c for c in running if c["metadata"]["name"] not in finished]) <= (0 if suspend else limit)


def test_the_status_shows_each_branch() -> None:
    status = reconcile(look_at(RUNNING, ended("one", seconds=60), a_child("two"))).status
    assert [(b.name, b.state, b.reason) for b in status.branches] == [
        ("one", "Planning", "RecordsProcessed"), ("two", "Planning", None), ("three", "Pending", None)
    ]  # fmt: skip
    assert status.branch_counts.to_object() == {"total": 3, "active": 1, "succeeded": 1, "failed": 0}
    assert status.summary.progress == "100/300"


def test_status_names_the_branches_that_lag_behind_and_their_shards() -> None:
    slow = ended("three", seconds=100)
    uneven = slow.model_copy(
        update={"status": slow.status.model_copy(update={"stragglers": ("7",), "evenness_percent": 60})}
    )
    status = reconcile(look_at(RUNNING, ended("one", seconds=10), ended("two", seconds=12), uneven)).status
    assert (status.stragglers, status.evenness_percent) == (("three", "three/7"), 48)
    assert [branch.evenness_percent for branch in status.branches] == [None, None, 60]


def test_status_names_a_branch_that_is_still_running() -> None:
    began = a_child("three")
    began = began.model_copy(update={"status": began.status.model_copy(update={"start_time": NOON})})
    quick = (ended("one", seconds=10), ended("two", seconds=10))
    assert reconcile(look_at(RUNNING, *quick, began, after=20)).status.stragglers == ()
    assert reconcile(look_at(RUNNING, *quick, began, after=21)).status.stragglers == ("three",)


def test_status_tells_when_the_first_record_of_any_branch_was_begun() -> None:
    children = []
    for name, after in (("one", 20), ("two", 10)):
        child = a_child(name)
        begun = child.status.model_copy(update={"first_record_time": NOON + timedelta(seconds=after)})
        children.append(child.model_copy(update={"status": begun}))
    assert reconcile(look_at(RUNNING, *children, a_child("three"))).status.first_record_time == NOON + timedelta(
        seconds=10
    )
    assert reconcile(look_at(RUNNING, a_child("one"))).status.first_record_time is None


def test_conditions_tell_the_life_of_a_fan_out() -> None:
    assert conditions(look_at(THREE))["InputValidated"] == ("Unknown", "Planning")
    assert (
        conditions(look_at(THREE, jobs=[a_job(Role.PLAN, complete=True)], reports=[planned()]))["InputValidated"][0]
        == "True"
    )
    assert conditions(look_at(RUNNING, ended("one")))["BranchesComplete"] == ("False", "BranchesRunning")
    assert conditions(look_at(RUNNING, *DONE))["Joined"] == ("Unknown", "Joining")
    at_end = conditions(look_at(RUNNING, *DONE, jobs=[JOIN], reports=[joined()]))
    assert [kind for kind, (status, _) in at_end.items() if status == "True"] == [
        "InputValidated", "BranchesComplete", "Joined", "Complete"
    ]  # fmt: skip


def test_inline_records_are_read_here_and_carried_to_the_join() -> None:
    fan_out = THREE.with_spec(input={"inline": [{"custom_id": "a"}, {"custom_id": "b"}], "format": "jsonl"})
    plan = reconcile(look_at(fan_out))
    assert plan.status.records.total == 2
    (config_map,) = plan.children or ()
    assert set(config_map["data"]) == {"records.jsonl", "plan.jsonl"}
    assert config_map["metadata"]["labels"][labels.FAN_OUT_JOB] == "answers"
    repeated = fan_out.with_spec(input={"inline": [{"custom_id": "a"}] * 2, "format": "jsonl"})
    assert end(look_at(repeated))[0] == "InputInvalid"


def test_every_subset_of_branches_leads_to_one_end() -> None:
    """No combination of ends is left without an answer."""
    reasons = (None, Reason.WORKER_FAILED, Reason.CANCELLED, Reason.DEADLINE_EXCEEDED, Reason.INPUT_INVALID)
    for mode, combination in itertools.product(("All", "Any", "BestEffort"), itertools.product(reasons, repeat=3)):
        seen = [ended(name, reason) for name, reason in zip(("one", "two", "three"), combination, strict=True)]
        status = reconcile(look_at(RUNNING.policy(mode), *seen, jobs=[JOIN], reports=[joined()])).status
        assert status.finished
        assert status.is_true(ConditionType.COMPLETE) == (
            None in combination if mode != "All" else set(combination) == {None}
        )


def test_reconcile_of_an_empty_window_is_complete_without_a_branch() -> None:
    window = {"startTime": "2026-01-15T11:30:00Z", "endTime": "2026-01-15T12:00:00Z"}
    spec = {"uri": "s3://in/", "format": "text", "objects": "ModifiedInWindow", "window": window}
    plan = reconcile(look_at(a_fan_out().with_spec(input=spec), reports=[planned(records=0, shards=0)]))
    assert plan.status.is_true(ConditionType.COMPLETE)
    assert plan.status.summary.state == "Complete"
    assert plan.children is None
