"""What a user may ask of a batch that is there already, and when it is too late for it: the same wherever batches live."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from headrace.api import labels
from headrace.api.inferencebatch import InferenceBatch, InferenceBatchSpec, forbidden_changes
from headrace.api.meta import ConditionStatus
from headrace.api.reasons import ConditionType, Reason


class EditRefused(Exception):
    """What was asked for cannot be done with the batch as it is."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason, self.message = reason, message
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Edit:
    """What is to be changed about a batch."""

    spec: Mapping[str, Any] = field(default_factory=dict)
    """Spec fields, all of one word: they are called the same in Python and in a manifest."""
    annotations: Mapping[str, str] = field(default_factory=dict)


Wish = Callable[[InferenceBatch], Edit]
"""What somebody wants of a batch. Raises `EditRefused`."""


def cancel(batch: InferenceBatch) -> Edit:
    """End the batch, and keep what is done."""
    return _spec(batch, cancel=True)


def suspend(batch: InferenceBatch) -> Edit:
    """Put its work away."""
    return _spec(batch, suspend=True)


def resume(batch: InferenceBatch) -> Edit:
    """Go on with it."""
    return _spec(batch, suspend=False)


def retry(batch: InferenceBatch) -> Edit:
    """One more round of a batch that has failed."""
    if not batch.status.is_true(ConditionType.FAILED):
        state_word = "is complete" if batch.status.finished else "has not failed"
        raise EditRefused("NotFailed", f"{batch.metadata.name} {state_word}: there is nothing to retry")
    return Edit(annotations={labels.RETRY: str(batch.status.retries + 1)})


def _spec(batch: InferenceBatch, **fields: Any) -> Edit:
    if batch.status.finished:
        end = "has failed" if batch.status.is_true(ConditionType.FAILED) else "is complete"
        raise EditRefused("AlreadyFinished", f"{batch.metadata.name} {end} already: nothing is left to be changed")
    return Edit(spec=fields)


def not_there(namespace: str, name: str) -> str:
    """The sentence for a batch that does not exist."""
    return f"there is no InferenceBatch {name} in the namespace {namespace}"


class Submission(StrEnum):
    """What submitting a batch comes to."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    STARTED_OVER = "started over"


class ImmutableFields(Exception):
    """A batch of that name exists, and what was changed about it cannot be."""

    def __init__(self, batch: InferenceBatch, fields: list[str]) -> None:
        self.batch, self.fields = batch, fields
        super().__init__(
            f"{batch.metadata.name} exists, and {', '.join(f'spec.{f}' for f in fields)} cannot be changed"
        )


def submission(old: InferenceBatch | None, new: InferenceBatch, *, replace: bool) -> Submission:
    """What submitting the batch would come to, where there is an `old` one of that name. Raises `ImmutableFields`."""
    if old is None:
        return Submission.CREATED
    if replace or _never_began(old):
        return Submission.STARTED_OVER
    spec = merged_spec(old, new)
    forbidden = forbidden_changes(old.spec, spec)
    if forbidden:
        raise ImmutableFields(old, forbidden)
    return Submission.UNCHANGED if spec == old.spec else Submission.CHANGED


def merged_spec(old: InferenceBatch, new: InferenceBatch) -> InferenceBatchSpec:
    """The new spec, in which a cancellation stays that the manifest does not speak of."""
    if old.spec.cancel and "cancel" not in new.spec.model_fields_set:
        return new.spec.model_copy(update={"cancel": True})
    return new.spec


def _never_began(batch: InferenceBatch) -> bool:
    """Whether the batch ended before any record was worked on, for a reason that is mended outside of it: a new try is free."""
    failed = batch.status.condition(ConditionType.FAILED)
    validated = batch.status.condition(ConditionType.INPUT_VALIDATED)
    refused = validated is not None and validated.status == ConditionStatus.FALSE
    return batch.status.is_true(ConditionType.FAILED) and (
        refused or (failed is not None and failed.reason == Reason.INVALID_SPEC)
    )
