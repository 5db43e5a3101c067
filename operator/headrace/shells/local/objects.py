"""What a user may do to a batch on this machine: submit, change, delete. The spec is written here and nowhere else."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from headrace.api import labels
from headrace.api.inferencebatch import InferenceBatch, InferenceBatchSpec, forbidden_changes
from headrace.api.meta import ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.shells.local.pods import Pods
from headrace.shells.local.state import BatchFolder, StateDir, StateError


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


def plan_submission(state: StateDir, batch: InferenceBatch, *, replace: bool) -> Submission:
    """What submitting the batch would come to. Raises `ImmutableFields`."""
    folder = state.batch(batch.metadata.namespace, batch.metadata.name)
    if not folder.exists:
        return Submission.CREATED
    old = folder.load()
    if replace or _never_began(old):
        return Submission.STARTED_OVER
    new_spec = _merged_spec(old, batch)
    forbidden = forbidden_changes(old.spec, new_spec)
    if forbidden:
        raise ImmutableFields(old, forbidden)
    return Submission.UNCHANGED if new_spec == old.spec else Submission.CHANGED


def submit(state: StateDir, batch: InferenceBatch, now: datetime, *, replace: bool) -> Submission:
    """Create the batch, or bring the one of that name to this spec. Raises `ImmutableFields`, `StateError`."""
    folder = state.batch(batch.metadata.namespace, batch.metadata.name)
    with state.editing(folder):
        submission = plan_submission(state, batch, replace=replace)
        if submission == Submission.STARTED_OVER:
            _delete(state, folder)
        if submission in (Submission.CREATED, Submission.STARTED_OVER):
            folder.write_object(_created(batch, now))
        elif submission == Submission.CHANGED:
            old = folder.load()
            _write_spec(folder, old, _merged_spec(old, batch))
    return submission


def change_spec(state: StateDir, folder: BatchFolder, **fields: Any) -> None:
    """Set spec fields (snake_case) of a batch that is not finished. Raises `StateError`."""
    with state.editing(folder):
        old = folder.load()
        if old.status.finished:
            end = "has failed" if old.status.is_true(ConditionType.FAILED) else "is complete"
            raise StateError("AlreadyFinished", f"{folder.name} {end} already: nothing is left to be changed")
        new = old.spec.model_copy(update=fields)
        if new != old.spec:
            _write_spec(folder, old, new)


def ask_retry(state: StateDir, folder: BatchFolder) -> None:
    """Ask for one more round of a batch that has failed. Raises `StateError`."""
    with state.editing(folder):
        old = folder.load()
        if not old.status.is_true(ConditionType.FAILED):
            state_word = "is complete" if old.status.finished else "has not failed"
            raise StateError("NotFailed", f"{folder.name} {state_word}: there is nothing to retry")
        annotations = {**old.metadata.annotations, labels.RETRY: str(old.status.retries + 1)}
        metadata = old.metadata.model_copy(update={"annotations": annotations})
        folder.write_object(old.model_copy(update={"metadata": metadata}))


def delete(state: StateDir, folder: BatchFolder) -> bool:
    """Delete a batch with its children and its default output; says whether that output was there. Raises `StateError`."""
    if not folder.path.exists():
        folder.load()  # says that there is none
    with state.running(folder), state.editing(folder):
        return _delete(state, folder)


def _delete(state: StateDir, folder: BatchFolder) -> bool:
    """Output first: a batch whose output is gone can still be deleted, an output without its batch would be nobody's."""
    if folder.pods.exists():
        Pods(folder.pods, _utc_now()).drain(_utc_now)
    output = state.output_folder(folder.namespace, folder.name)
    had_output = output.exists()
    state.discard(output)
    state.discard(folder.path)
    return had_output


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _never_began(batch: InferenceBatch) -> bool:
    """Whether the batch ended before any record was worked on, for a reason that is mended outside of it: a new try is free."""
    failed = batch.status.condition(ConditionType.FAILED)
    validated = batch.status.condition(ConditionType.INPUT_VALIDATED)
    refused = validated is not None and validated.status == ConditionStatus.FALSE
    return batch.status.is_true(ConditionType.FAILED) and (
        refused or (failed is not None and failed.reason == Reason.INVALID_SPEC)
    )


def _merged_spec(old: InferenceBatch, new: InferenceBatch) -> InferenceBatchSpec:
    """The new spec, in which a cancellation stays that the manifest does not speak of."""
    if old.spec.cancel and "cancel" not in new.spec.model_fields_set:
        return new.spec.model_copy(update={"cancel": True})
    return new.spec


def _write_spec(folder: BatchFolder, old: InferenceBatch, spec: InferenceBatchSpec) -> None:
    metadata = old.metadata.model_copy(update={"generation": old.metadata.generation + 1})
    folder.write_object(old.model_copy(update={"metadata": metadata, "spec": spec}))


def _created(batch: InferenceBatch, now: datetime) -> InferenceBatch:
    added = {"uid": str(uuid.uuid4()), "generation": 1, "creation_timestamp": now.replace(microsecond=0)}
    return batch.model_copy(update={"metadata": batch.metadata.model_copy(update=added)})
