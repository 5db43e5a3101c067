"""The branches of a FanOutJob: what each is, how it is getting on, and how many of them must succeed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from headrace.api.base import ApiModel, Count, Rule, ShortText
from headrace.api.batchstatus import RecordCounts
from headrace.api.cascade import MAX_STAGES
from headrace.api.inferencebatch import Work
from headrace.api.input import Prompt, When

MAX_BRANCHES = 64
BY_NAME = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


class Branch(Work):
    """One way to answer the records: an InferenceBatch without input and output."""

    name: Annotated[str, Field(min_length=1, max_length=50, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    """What results call it; its InferenceBatch is named after the FanOutJob and it."""
    prompt: Prompt | None = None
    """How a record becomes a request of this branch; by default as `input.prompt` says."""
    when: When | None = None
    """A CEL expression on the record; the branch takes those for which it is true, as in `size(record.text) < 2000`. By default all."""
    weight: Annotated[int, Field(ge=0, le=1_000_000)] = 1
    """How much its answers count: votes, and who wins a tie."""
    stage: Annotated[int, Field(ge=0, le=MAX_STAGES - 1)] = 0
    """When it works, in a cascade: on the records that the stages before it have not settled."""
    required: bool = False
    """Without this branch the FanOutJob fails, whatever the completion policy says, and a record that it takes but does not answer is an
    error."""


class CompletionMode(StrEnum):
    """How many branches must succeed."""

    ALL = "All"
    QUORUM = "Quorum"
    ANY = "Any"
    BEST_EFFORT = "BestEffort"


class CompletionPolicy(ApiModel):
    """How many branches must succeed, and answer each record. A branch that fails, hangs or is refused changes nothing for the others."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="(self.mode == 'Quorum') == has(self.minSucceeded)",
            message="minSucceeded must be set when mode is Quorum, and only then",
            check=lambda it: (it.mode == CompletionMode.QUORUM) == (it.min_succeeded is not None),
        ),
        Rule(
            cel="self.mode != 'Any' || self.minAnswers == 1",
            message="minAnswers must be 1 when mode is Any: the others are cancelled when one branch is complete",
            check=lambda it: it.mode != CompletionMode.ANY or it.min_answers == 1,
            field="minAnswers",
        ),
    )

    mode: CompletionMode = CompletionMode.ALL
    """All: each one. Quorum: so many. Any: one is enough, and the others are cancelled then. BestEffort: at least one of all that can."""
    min_succeeded: Annotated[int, Field(ge=1, le=MAX_BRANCHES)] | None = None
    """How many, for the mode Quorum."""
    min_answers: Annotated[int, Field(ge=1, le=MAX_BRANCHES)] = 1
    """How many of the branches that take a record must answer it: with fewer the record is an error, as it is in the output. Where only so
    many take it or fewer, all of them must."""


class BranchStatus(ApiModel):
    """How one branch is getting on."""

    name: Annotated[str, Field(max_length=50)]
    """Its name."""
    state: ShortText = "Pending"
    """What it is doing. For people: no program may read it."""
    reason: ShortText | None = None
    """Why it has ended as it has: the reason of its condition Complete or Failed."""
    message: Annotated[str, Field(max_length=256)] | None = None
    """The same as a sentence."""
    records: RecordCounts = Field(default_factory=RecordCounts)
    """The records that it has taken."""
    evenness_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """Jain's index over the durations of its shards: 100 when all took equally long."""
    round: Count = 0
    """The retry in which it was run last."""


class BranchCounts(ApiModel):
    """Where the branches are."""

    total: Count = 0
    """All of them."""
    active: Count = 0
    """Those that have been begun and have not ended."""
    succeeded: Count = 0
    """Those that are complete."""
    failed: Count = 0
    """Those that have ended otherwise."""
