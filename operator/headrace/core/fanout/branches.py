"""How one branch is doing, as far as decisions need it."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.api import labels
from headrace.api.branches import Branch, BranchCounts, BranchStatus
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.meta import Condition
from headrace.api.reasons import ConditionType, Reason
from headrace.api.records import ErrorCode
from headrace.api.worker import JoinBranch
from headrace.core.fanout.observed import FanOutObserved

NOT_STARTED = "NotStarted"
"""The reason of a branch that was never begun."""
_BOOKS_CLOSED = frozenset(
    {Reason.CANCELLED, Reason.DEADLINE_EXCEEDED, Reason.TOO_MANY_FAILED_RECORDS, Reason.SHARD_FAILED}
)
"""Ends after which each record has a line all the same."""


@dataclass(frozen=True, slots=True)
class BranchView:
    """A branch and its InferenceBatch, if there is one yet."""

    branch: Branch
    child: InferenceBatch | None
    round: int
    """Which retry of the FanOutJob this is."""
    given: int | None = None
    """How many records the stages before it have left for it; None as long as that is not known. All, in the first stage."""
    not_given: int = 0
    """How many they have settled."""

    @property
    def due(self) -> bool:
        """Whether its stage has begun and has something to do."""
        return self.branch.stage == 0 or bool(self.given)

    @property
    def spared(self) -> bool:
        """Whether the stages before it have settled everything."""
        return self.branch.stage > 0 and self.given == 0 and self.child is None

    @property
    def succeeded(self) -> bool:
        """Whether it has done its work. One whose `when` is true for no record had none."""
        child = self.child
        if child is None or self.took_nothing:
            return self.spared or self.took_nothing
        return child.status.is_true(ConditionType.COMPLETE) and not self._goes_on

    @property
    def took_nothing(self) -> bool:
        """Whether its `when` is true for no record."""
        validation = self.child.status.validation if self.child is not None else None
        codes = {error.code for error in validation.errors} if validation is not None else set()
        return codes == {ErrorCode.NO_RECORD_TAKEN}

    @property
    def failed(self) -> bool:
        """Whether it has ended and will not be tried again in this round."""
        return self.child is not None and self.finished and not self.succeeded

    @property
    def finished(self) -> bool:
        """Whether nothing more will come of it in this round."""
        child = self.child
        if child is None or not child.status.finished:
            return self.spared
        return not self._goes_on

    @property
    def _goes_on(self) -> bool:
        """Whether it has ended, but not for good."""
        return self.child is not None and (self.child.retry_asked or self.due_for_retry)

    @property
    def due_for_retry(self) -> bool:
        """Whether it, or records of it, failed in an earlier round than this. A branch that was cancelled stays so."""
        child = self.child
        if child is None or self.took_nothing or child.spec.cancel:
            return False
        return child.status.retriable and self.last_round < self.round

    @property
    def last_round(self) -> int:
        """The retry of the FanOutJob in which it was run last."""
        told = self.child.metadata.labels.get(labels.ROUND, "0") if self.child is not None else "0"
        return int(told) if told.isascii() and told.isdecimal() else 0

    @property
    def end(self) -> Condition | None:
        """The condition that says how it has ended."""
        status = self.child.status if self.child is not None and self.finished else None
        kinds = (ConditionType.FAILED, ConditionType.COMPLETE)
        return next((status.condition(k) for k in kinds if status.is_true(k)), None) if status is not None else None

    @property
    def reason(self) -> str:
        """Why it has ended as it has, or that it never began."""
        if self.spared:
            return ErrorCode.NOT_ESCALATED
        if self.took_nothing:
            return ErrorCode.NOT_ROUTED
        return self.end.reason if self.end is not None else NOT_STARTED

    def joined(self, *, cancelled: bool) -> bool:
        """Whether its output is to be joined: it is complete, or has ended early and closed its books.

        Of one that lost a race and was cancelled for it nothing counts: how far it had come is chance. `cancelled`: all were.
        """
        child = self.child
        if child is None or not self.finished or self.took_nothing:
            return False
        if child.status.is_true(ConditionType.COMPLETE):
            return True
        closed = child.status.is_true(ConditionType.INPUT_VALIDATED) and self.reason in _BOOKS_CLOSED
        return closed and (cancelled or self.reason != Reason.CANCELLED)

    def for_join(self, *, cancelled: bool) -> JoinBranch:
        """As the join is told of it."""
        joined = self.joined(cancelled=cancelled)
        return JoinBranch(
            name=self.branch.name,
            weight=self.branch.weight,
            joined=joined,
            reason="" if joined else str(self.reason),
            stage=self.branch.stage,
            required=self.branch.required,
        )

    def status(self) -> BranchStatus:
        """As the FanOutJob's status shows it."""
        if self.spared:
            return BranchStatus(name=self.branch.name, state="NoRecords", reason=ErrorCode.NOT_ESCALATED)
        if self.child is None:
            return BranchStatus(name=self.branch.name)
        end, shown = self.end, self.child.status.summary.state or "Planning"
        return BranchStatus(
            name=self.branch.name,
            state="NoRecords" if self.took_nothing else shown,
            reason=end.reason if end is not None else None,
            message=_clipped(end.message) if end is not None else None,
            records=self.child.status.records,
            evenness_percent=self.child.status.evenness_percent,
            round=self.last_round,
        )


def views(observed: FanOutObserved) -> tuple[BranchView, ...]:
    """All branches, in the order of the spec."""
    fan_out = observed.fan_out
    known = {it.stage: (it.records, it.spared) for it in fan_out.status.stages}
    return tuple(
        BranchView(
            branch,
            observed.children.get(branch.name),
            fan_out.retries_asked,
            *known.get(branch.stage, (None, 0)),
        )
        for branch in fan_out.spec.branches
    )


def counts(branches: tuple[BranchView, ...]) -> BranchCounts:
    """Where the branches are."""
    begun = [view for view in branches if view.child is not None]
    return BranchCounts(
        total=len(branches),
        active=sum(not view.finished for view in begun),
        succeeded=sum(view.succeeded for view in branches),
        failed=sum(view.failed for view in branches),
    )


def _clipped(text: str) -> str:
    return text if len(text) <= 256 else text[:255] + "…"
