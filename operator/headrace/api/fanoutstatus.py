"""What a FanOutJob says of itself: how far it and its branches are, and what they have used."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from headrace.api.base import Count, Time
from headrace.api.batchstatus import OutputStatus, RecordCounts, Stragglers, Summary, Usage, Validation
from headrace.api.branches import BY_NAME, MAX_BRANCHES, BranchCounts, BranchStatus
from headrace.api.cascade import MAX_STAGES, StageStatus
from headrace.api.meta import Conditions, WorkStatus
from headrace.api.reasons import ConditionType, Reason


class FanOutJobStatus(WorkStatus):
    """What was observed."""

    conditions: Conditions = ()
    """InputValidated, BranchesComplete, Joined, Suspended, Complete, Failed; where a branch has a reference, DataDrift."""
    records: RecordCounts = Field(default_factory=RecordCounts)
    """Of the joined output: pending until it is there."""
    branch_counts: BranchCounts = Field(default_factory=BranchCounts)
    branches: Annotated[tuple[BranchStatus, ...], Field(max_length=MAX_BRANCHES, json_schema_extra=dict(BY_NAME))] = ()
    """Each branch, in the order of the spec."""
    usage: Usage = Field(default_factory=Usage)
    """What all branches have used together."""
    wasted: Usage = Field(default_factory=Usage)
    """Of this, what went into answers that do not count: of branches that another was faster than, or that have failed."""
    stages: Annotated[
        tuple[StageStatus, ...],
        Field(
            max_length=MAX_STAGES,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["stage"]},
        ),
    ] = ()
    """The stages of a cascade after the first, as far as their records are known."""
    saved_tokens: Count | None = None
    """Tokens that the later stages of a cascade were spared: what a record has cost them, or else the stages before, times the records
    that they were not given."""
    evenness_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """Jain's index over the durations of the branches that are complete: 100 when all took equally long."""
    stragglers: Stragglers = ()
    """Branches, and shards as BRANCH/SHARD, that take or took more than twice as long as half of the others; at most ten."""
    validation: Validation | None = None
    output: OutputStatus | None = None
    start_time: Time | None = None
    """When it was first looked at."""
    completion_time: Time | None = None
    """When it was Complete or Failed."""
    deadline_time: Time | None = None
    """When the branches are ended, on the wall clock."""
    summary: Summary = Field(default_factory=Summary)

    @property
    def retriable(self) -> bool:
        """Whether it is over, and a retry could bring more: it has failed, or branches or records of them have.

        Branches that were cancelled stay so.
        """
        left = [branch for branch in self.branches if branch.reason != Reason.CANCELLED]
        cancelled = len(self.branches) - len(left)
        lacking = self.branch_counts.failed > cancelled or any(branch.records.failed for branch in left)
        return self.is_true(ConditionType.FAILED) or (self.finished and lacking)
