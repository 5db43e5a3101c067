"""The children of a FanOutJob: an InferenceBatch for each branch, and its own two Jobs, which need no GPU."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.branches import Branch
from headrace.api.fanoutjob import FanOutJob
from headrace.api.inferencebatch import InferenceBatch, InferenceBatchSpec, Work
from headrace.api.input import Input, Output
from headrace.api.manifest import InlinePlan
from headrace.api.worker import FanOutConfig, Role, parts_input, stage_input
from headrace.core.children import FanOutWork, owned, single_job
from headrace.core.fanout.branches import BranchView
from headrace.core.fanout.observed import FanOutObserved, as_batch
from headrace.core.fanout.policy import deadline, decided
from headrace.core.inline import inline_config_map
from headrace.core.inline import lay_out as lay_out_batch
from headrace.core.observed import Installation
from headrace.core.tracing.context import context_of, handed_on

DEADLINE_SLACK = timedelta(seconds=5)
"""A child's deadline is not moved for less: it is counted from the child's creation, which is known to the second only."""
_PLAN_TRIES, _JOIN_TRIES = 3, 6


def own_children(observed: FanOutObserved, inline: InlinePlan | None) -> tuple[JsonObject, ...]:
    """What carries the input: inline records, and the Job whose pod has read it, while it is there."""
    records = input_config_map(observed, inline)
    return records if observed.job(Role.PLAN) is None else (*records, plan_job(observed))


def input_config_map(observed: FanOutObserved, inline: InlinePlan | None) -> tuple[JsonObject, ...]:
    """The ConfigMap of inline records; none when the input is elsewhere."""
    if inline is None:
        return ()
    config_map = inline_config_map(observed.own_work.batch, inline)
    metadata = config_map["metadata"]
    return ({**config_map, "metadata": owned(observed.fan_out, metadata["name"], "input")},)


def lay_out(observed: FanOutObserved) -> InlinePlan | None:
    """Inline records as a file, with its shard manifest where that can be written here; None when the input is elsewhere.

    They are looked at for their ids alone.
    """
    return lay_out_batch(observed.own_work.batch, observed.installation, ids_only=True)


def plan_job(observed: FanOutObserved) -> JsonObject:
    """The preflight: one CPU pod that reads the whole input for its ids."""
    return _own_job(observed, Role.PLAN, FanOutConfig(), _PLAN_TRIES)


def join_job(observed: FanOutObserved, branches: Iterable[BranchView]) -> JsonObject:
    """The join: one CPU pod."""
    fan_out = observed.fan_out
    config = FanOutConfig(
        aggregation=fan_out.spec.aggregation,
        branches=tuple(view.for_join(cancelled=fan_out.spec.cancel) for view in branches),
        min_answers=fan_out.spec.completion_policy.min_answers,
        round=fan_out.retries_asked,
    )
    return _own_job(observed, Role.JOIN, config, _JOIN_TRIES)


def select_job(observed: FanOutObserved, branches: Iterable[BranchView], stage: int) -> JsonObject:
    """The selection of the records for a stage of a cascade: one CPU pod."""
    fan_out = observed.fan_out
    earlier = (view for view in branches if view.branch.stage < stage)
    config = FanOutConfig(
        aggregation=fan_out.spec.aggregation,
        branches=tuple(view.for_join(cancelled=fan_out.spec.cancel) for view in earlier),
        min_answers=fan_out.spec.completion_policy.min_answers,
        round=fan_out.retries_asked,
        cascade=fan_out.spec.cascade,
        stage=stage,
    )
    job = _own_job(observed, Role.SELECT, config, _JOIN_TRIES)
    job["metadata"]["name"] = select_name(fan_out, stage)
    return job


def select_name(fan_out: FanOutJob, stage: int) -> str:
    """The name of that Job, another for each stage and round."""
    suffix = f"-r{fan_out.retries_asked}" if fan_out.retries_asked else ""
    return f"{fan_out.metadata.name}-{Role.SELECT}-{stage}{suffix}"


def _own_job(observed: FanOutObserved, role: Role, config: FanOutConfig, tries: int) -> JsonObject:
    work = FanOutWork(observed.fan_out, config)
    return single_job(observed.own_work.batch, observed.installation, role, tries, work)


def branch_children(observed: FanOutObserved, branches: tuple[BranchView, ...]) -> tuple[JsonObject, ...]:
    """The InferenceBatches that there should be: those that there are, and as many more as may be at work at once."""
    fan_out = observed.fan_out
    at_work = _at_work(observed, branches)
    unwanted = fan_out.spec.cancel or decided(observed, branches)
    wanted = []
    for view in branches:
        running = view.branch.name in at_work
        if view.child is not None and view.finished:
            wanted.append(_settled(observed, view, view.child))
        elif view.child is not None:
            wanted.append(_going_on(observed, view, view.child, suspend=not running, cancel=unwanted))
        elif running and not unwanted and not _too_late(observed):
            wanted.append(_child(observed, view, {"deadline": _deadline_seconds(observed, view)}))
    return tuple(wanted)


def _at_work(observed: FanOutObserved, branches: tuple[BranchView, ...]) -> set[str]:
    """The branches that may work now. Those that were begun go first, so that lowering the limit parks the last of them."""
    spec, most = observed.fan_out.spec, observed.installation.max_parallel_branches
    if spec.suspend:
        return set()
    begun = [view.branch for view in branches if view.child is not None and not view.finished]
    waiting = [view.branch for view in branches if view.child is None and view.due]
    in_line = [*begun, *waiting]
    heavy = [branch.name for branch in in_line if branch.engine.needs_gpu]
    no_room = set(heavy[most:]) if most is not None else set()
    return set([branch.name for branch in in_line if branch.name not in no_room][: spec.max_parallel_branches])


def _too_late(observed: FanOutObserved) -> bool:
    at = deadline(observed.fan_out, observed.now)
    return at is not None and observed.now >= at


def _settled(observed: FanOutObserved, view: BranchView, child: InferenceBatch) -> JsonObject:
    """A branch that has ended stays as it is."""
    spec = child.spec
    held = {"suspend": spec.suspend, "cancel": spec.cancel, "deadline": spec.completion_deadline_seconds}
    return _child(observed, view, held)


def _going_on(
    observed: FanOutObserved, view: BranchView, child: InferenceBatch, *, suspend: bool, cancel: bool
) -> JsonObject:
    """A branch that is at work, or is to be once more."""
    held = {
        "suspend": suspend and not cancel,
        "cancel": cancel or child.spec.cancel,
        "deadline": _deadline_seconds(observed, view),
    }
    return _child(observed, view, held, again=view.due_for_retry)


def _deadline_seconds(observed: FanOutObserved, view: BranchView) -> int | None:
    """The branch's own deadline, or that of the whole, whichever comes first; both count from when the child was begun."""
    own, child = view.branch.completion_deadline_seconds, view.child
    whole = deadline(observed.fan_out, observed.now)
    if whole is None:
        return own
    since = observed.now
    if child is not None and not (view.due_for_retry or child.retry_asked):
        since = child.status.retry_time or child.metadata.creation_timestamp or observed.now
    left = max(1, round((whole - since).total_seconds()))
    seconds = left if own is None else min(own, left)
    told = child.spec.completion_deadline_seconds if child is not None else None
    if told is not None and abs(told - seconds) <= DEADLINE_SLACK.total_seconds():
        return told
    return seconds


def _child(observed: FanOutObserved, view: BranchView, held: dict[str, Any], *, again: bool = False) -> JsonObject:
    """The InferenceBatch of a branch. `held` are the fields that may change; `again` asks for one more round of it."""
    fan_out, branch, child = observed.fan_out, view.branch, view.child
    round_ = fan_out.retries_asked if child is None or again else view.last_round
    metadata = owned(fan_out, fan_out.child_name(branch), "branch")
    metadata["labels"] |= {labels.BRANCH: branch.name, labels.ROUND: str(round_)}
    asked = (child.retries_asked if child is not None else 0) + int(again)
    annotations = {**_context(observed), **({labels.RETRY: str(asked)} if asked else {})}
    if annotations:
        metadata["annotations"] = annotations
    spec = branch_spec(fan_out, observed.installation, branch).model_copy(
        update={
            "suspend": held.get("suspend", False),
            "cancel": held.get("cancel", False),
            "completion_deadline_seconds": held.get("deadline"),
        }
    )
    return {"apiVersion": labels.API_VERSION, "kind": "InferenceBatch", "metadata": metadata, "spec": spec.to_object()}


def _context(observed: FanOutObserved) -> dict[str, str]:
    """The annotation with the context of a branch. It is never changed: the retries of a branch are below its first span."""
    tracing = observed.installation.tracing
    return handed_on(context_of(observed.fan_out, 0, tracing) if tracing is not None else None)


def branch_spec(fan_out: FanOutJob, place: Installation, branch: Branch) -> InferenceBatchSpec:
    """What the InferenceBatch of a branch is to do: its own work on the common input, in a folder of its own."""
    output = as_batch(fan_out, place).spec.output.uri or ""
    records = _records(fan_out, output, branch.stage)
    return InferenceBatchSpec(
        **{name: getattr(branch, name) for name in Work.model_fields},
        input=records.model_copy(update={"when": branch.when, "prompt": branch.prompt or records.prompt}),
        output=Output(uri=f"{output.rstrip('/')}/branches/{branch.name}/"),
        storage=fan_out.spec.storage,
        service_account_name=fan_out.spec.service_account_name,
    )


def _records(fan_out: FanOutJob, output: str, stage: int) -> Input:
    """What the branches of a stage read: the input, the parts of its images, or what the stages before have left of them."""
    if stage > 0:
        return stage_input(fan_out.spec.input, output, stage)
    split = fan_out.spec.split
    if split is not None and split.by.of_images:
        return parts_input(fan_out.spec.input, output, fan_out.metadata.uid)
    return fan_out.records_input
