"""`FanOutJob`: one input, many branches, one joined answer for each record.

A branch is all of an InferenceBatch but its input and output, and becomes one. So what is known about running a batch is known once.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from headrace.api import labels
from headrace.api.aggregation import Aggregation, AggregationType
from headrace.api.base import ApiModel, Name, Rule
from headrace.api.branches import BY_NAME, MAX_BRANCHES, Branch, CompletionMode, CompletionPolicy
from headrace.api.cascade import Cascade
from headrace.api.common import Storage, short_name
from headrace.api.fanoutstatus import FanOutJobStatus
from headrace.api.inferencebatch import MAX_NAME_LENGTH
from headrace.api.input import WINDOW_KNOWN, Input, InputFormat, Output
from headrace.api.meta import ObjectMeta
from headrace.api.reasons import ConditionType
from headrace.api.splitting import Split


class FanOutJobSpec(ApiModel):
    """What is wanted. Only maxParallelBranches, the deadline, suspend and cancel may change later."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.branches.all(one, self.branches.exists_one(other, other.name == one.name))",
            message="the names of branches must differ",
            check=lambda it: len({branch.name for branch in it.branches}) == len(it.branches),
            field="branches",
        ),
        Rule(
            cel="!has(self.completionPolicy.minSucceeded) || self.completionPolicy.minSucceeded <= self.branches.size()",
            message="minSucceeded must not be greater than the number of branches",
            check=lambda it: (it.completion_policy.min_succeeded or 0) <= len(it.branches),
            field="completionPolicy.minSucceeded",
        ),
        Rule(
            cel="self.completionPolicy.minAnswers <= self.branches.size()",
            message="minAnswers must not be greater than the number of branches",
            check=lambda it: it.completion_policy.min_answers <= len(it.branches),
            field="completionPolicy.minAnswers",
        ),
        Rule(
            cel="self.input.format != 'openai' || self.branches.all(b, !has(b.prompt))",
            message="branches may not have a prompt when input.format is openai: its lines are requests already",
            check=lambda it: it.input.format != InputFormat.OPENAI or all(b.prompt is None for b in it.branches),
            field="branches",
        ),
        Rule(
            cel="!has(self.input.when)",
            message="input.when is for one batch: say it as when of the branches",
            check=lambda it: it.input.when is None,
            field="input.when",
        ),
        Rule(
            cel="self.input.format != 'openai' || !has(self.aggregation.prompt)",
            message="aggregation.prompt may not be set when input.format is openai: its lines are requests already",
            check=lambda it: it.input.format != InputFormat.OPENAI or it.aggregation.prompt is None,
            field="aggregation.prompt",
        ),
        Rule(
            cel="has(self.cascade) == self.branches.exists(b, b.stage > 0)",
            message="cascade must be set when a branch has a stage after 0, and only then",
            check=lambda it: (it.cascade is not None) == any(b.stage > 0 for b in it.branches),
        ),
        Rule(
            cel="self.branches.all(b, b.stage == 0 || self.branches.exists(before, before.stage == b.stage - 1))",
            message="stages must be numbered from 0, without a gap",
            check=lambda it: {b.stage for b in it.branches} == set(range(1 + max(b.stage for b in it.branches))),
            field="branches",
        ),
        Rule(
            cel="!has(self.cascade) || !has(self.cascade.minAgreementPercent) || self.aggregation.type == 'vote'",
            message="minAgreementPercent is about votes: aggregation.type must be vote",
            check=lambda it: (
                it.cascade is None
                or it.cascade.min_agreement_percent is None
                or it.aggregation.type == AggregationType.VOTE
            ),
            field="cascade.minAgreementPercent",
        ),
        Rule(
            cel="!has(self.cascade) || !has(self.cascade.minScore) || self.aggregation.type == 'bestOf'",
            message="minScore is about the first scorer: aggregation.type must be bestOf",
            check=lambda it: (
                it.cascade is None or it.cascade.min_score is None or it.aggregation.type == AggregationType.BEST_OF
            ),
            field="cascade.minScore",
        ),
        Rule(
            cel="!has(self.cascade) || self.completionPolicy.mode != 'Any'",
            message="mode may not be Any in a cascade: its stages follow each other",
            check=lambda it: it.cascade is None or it.completion_policy.mode != CompletionMode.ANY,
            field="completionPolicy.mode",
        ),
        Rule(
            cel="!has(self.input.split)",
            message="input.split is for one batch: say it as split of the spec, so that all branches have the same parts",
            check=lambda it: it.input.split is None,
            field="input.split",
        ),
        Rule(
            cel="!has(self.split) || self.input.format != 'openai'",
            message="split may not be set when input.format is openai: its lines are requests already, and have no text to split",
            check=lambda it: it.split is None or it.input.format != InputFormat.OPENAI,
            field="split",
        ),
        Rule(
            cel="!has(self.split) || !(self.split.by in ['tiles', 'frames']) || !(self.input.format in ['text', 'csv'])",
            message="tiles and frames are of the images in content: input.format must be jsonl or parquet",
            check=lambda it: (
                it.split is None
                or not it.split.by.of_images
                or it.input.format not in (InputFormat.TEXT, InputFormat.CSV)
            ),
            field="input.format",
        ),
        Rule(
            cel="self.aggregation.type != 'reduce' || has(self.split)",
            message="the aggregation reduce puts the parts of a record together: split must say what they are",
            check=lambda it: it.aggregation.type != AggregationType.REDUCE or it.split is not None,
            field="aggregation.type",
        ),
    )

    input: Input
    split: Split | None = None
    """Split each record into parts first. The branches answer parts; the aggregation reduce puts the answers together again."""
    output: Output = Field(default_factory=Output)
    storage: Storage | None = None
    """Credentials and settings of the object stores; without it, what the pods' service account is given."""
    service_account_name: Name | None = None
    """The ServiceAccount that all pods run as, for clouds that give it access to their object stores; its token is not mounted."""
    branches: Annotated[
        tuple[Branch, ...], Field(min_length=1, max_length=MAX_BRANCHES, json_schema_extra=dict(BY_NAME))
    ]
    """The ways to answer the records, each on its own."""
    max_parallel_branches: Annotated[int, Field(ge=1, le=MAX_BRANCHES)] = MAX_BRANCHES
    """Branches at work at once; may change while they are."""
    completion_policy: CompletionPolicy = Field(default_factory=CompletionPolicy)
    aggregation: Aggregation = Field(default_factory=Aggregation)
    cascade: Cascade | None = None
    """Which records go on from one stage of the branches to the next."""
    completion_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """Wall clock from the creation of the object, or its last retry, until its branches end. What they have done by then is joined."""
    suspend: bool = False
    """Have all branches put their work away; set to false to go on where they stopped."""
    cancel: bool = False
    """End all branches now, and join what is done. Cannot be taken back."""


IMMUTABLE = (
    "input",
    "split",
    "output",
    "storage",
    "service_account_name",
    "branches",
    "completion_policy",
    "aggregation",
    "cascade",
)
"""Spec fields that cannot change: answers of different settings must never be joined."""


class FanOutJob(ApiModel):
    """One input, many branches in parallel and isolated, one joined answer for each record."""

    rules: ClassVar[tuple[Rule, ...]] = (
        WINDOW_KNOWN,
        short_name(MAX_NAME_LENGTH, "pods"),
        Rule(
            cel=f"self.spec.branches.all(b, self.metadata.name.size() + b.name.size() < {MAX_NAME_LENGTH})",
            message=f"metadata.name and the name of a branch must have less than {MAX_NAME_LENGTH} characters together: "
            "its InferenceBatch is named after both",
            check=lambda it: all(len(it.metadata.name) + len(b.name) < MAX_NAME_LENGTH for b in it.spec.branches),
            field="spec.branches",
        ),
    )

    api_version: Literal["headrace.dev/v1alpha1"] = "headrace.dev/v1alpha1"
    kind: Literal["FanOutJob"] = "FanOutJob"
    metadata: ObjectMeta
    spec: FanOutJobSpec
    status: FanOutJobStatus = Field(default_factory=FanOutJobStatus)

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def retries_asked(self) -> int:
        """How often a retry has been asked for, by annotation; anything that is not a number is none."""
        return labels.retries_asked(self.metadata.annotations)

    @property
    def retry_asked(self) -> bool:
        """Whether there is a retry to begin. One that is complete begins one for branches and records that have failed."""
        asked = self.retries_asked > self.status.retries
        return asked and (not self.status.is_true(ConditionType.COMPLETE) or self.status.retriable)

    @property
    def records_input(self) -> Input:
        """The input, with the parts that its records are split into."""
        return self.spec.input.model_copy(update={"split": self.spec.split})

    def child_name(self, branch: Branch) -> str:
        """The name of the branch's InferenceBatch."""
        return f"{self.metadata.name}-{branch.name}"
