"""What a user may ask of a batch that is there already, and when it is too late for it: the same wherever batches live."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from headrace.api import labels
from headrace.api.kinds import OurObject, forbidden_changes
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


Wish = Callable[[OurObject], Edit]
"""What somebody wants of a batch. Raises `EditRefused`."""


def cancel(batch: OurObject) -> Edit:
    """End the batch, and keep what is done."""
    return _spec(batch, cancel=True)


def suspend(batch: OurObject) -> Edit:
    """Put its work away."""
    return _spec(batch, suspend=True)


def resume(batch: OurObject) -> Edit:
    """Go on with it."""
    return _spec(batch, suspend=False)


def retry(batch: OurObject) -> Edit:
    """One more round for what has failed: the whole, branches of a fan-out, or records."""
    if not batch.status.retriable:
        state_word = "is complete" if batch.status.finished else "has not failed"
        raise EditRefused("NotFailed", f"{batch.metadata.name} {state_word}: there is nothing to retry")
    return Edit(annotations={labels.RETRY: str(batch.status.retries + 1)})


def _spec(batch: OurObject, **fields: Any) -> Edit:
    if batch.status.finished:
        end = "has failed" if batch.status.is_true(ConditionType.FAILED) else "is complete"
        raise EditRefused("AlreadyFinished", f"{batch.metadata.name} {end} already: nothing is left to be changed")
    return Edit(spec=fields)


def not_there(namespace: str, name: str) -> str:
    """The sentence for a batch that does not exist."""
    return f"there is no InferenceBatch or FanOutJob {name} in the namespace {namespace}"


class Submission(StrEnum):
    """What submitting a batch comes to."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    STARTED_OVER = "started over"


class ImmutableFields(Exception):
    """A batch of that name exists, and what was changed about it cannot be."""

    def __init__(self, batch: OurObject, fields: list[str]) -> None:
        self.batch, self.fields = batch, fields
        super().__init__(
            f"{batch.metadata.name} exists, and {', '.join(f'spec.{f}' for f in fields)} cannot be changed"
        )


def submission(old: OurObject | None, new: OurObject, *, replace: bool) -> Submission:
    """What submitting the object would come to, where there is an `old` one of that name.

    Raises `ImmutableFields`; `EditRefused` when the old one is of another kind, or belongs to a FanOutJob.
    """
    if old is None:
        return Submission.CREATED
    if old.kind != new.kind:
        raise EditRefused("NameTaken", f"{old.metadata.name} exists, and is a {old.kind}: choose another metadata.name")
    owner = next((it for it in old.metadata.owner_references if it.controller), None)
    if owner is not None:
        raise EditRefused(
            "NameTaken", f"{old.metadata.name} belongs to the {owner.kind} {owner.name}: choose another metadata.name"
        )
    if replace or _never_began(old):
        return Submission.STARTED_OVER
    merged = merged_spec(old, new)
    forbidden = forbidden_changes(old, merged)
    if forbidden:
        raise ImmutableFields(old, forbidden)
    return Submission.UNCHANGED if merged.spec == old.spec else Submission.CHANGED


def merged_spec(old: OurObject, new: OurObject) -> OurObject:
    """The new object, in whose spec a cancellation stays that the manifest does not speak of."""
    if old.spec.cancel and "cancel" not in new.spec.model_fields_set:
        return new.model_copy(update={"spec": new.spec.model_copy(update={"cancel": True})})
    return new


def _never_began(batch: OurObject) -> bool:
    """Whether the batch ended before any record was worked on, for a reason that is mended outside of it: a new try is free."""
    failed = batch.status.condition(ConditionType.FAILED)
    validated = batch.status.condition(ConditionType.INPUT_VALIDATED)
    refused = validated is not None and validated.status == ConditionStatus.FALSE
    return batch.status.is_true(ConditionType.FAILED) and (
        refused or (failed is not None and failed.reason == Reason.INVALID_SPEC)
    )
