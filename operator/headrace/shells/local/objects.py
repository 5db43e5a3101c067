"""What a user may do to a batch on this machine: submit, change, delete. The spec is written here and nowhere else."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from headrace.api.base import ApiModel
from headrace.api.fanoutjob import FanOutJob
from headrace.api.kinds import OurObject
from headrace.core.edits import Submission, Wish, merged_spec, submission
from headrace.shells.local.pods import Pods
from headrace.shells.local.state import BatchFolder, StateDir, StateError


def plan_submission(state: StateDir, batch: OurObject, *, replace: bool) -> Submission:
    """What submitting the batch would come to. Raises `ImmutableFields`."""
    folder = state.batch(batch.metadata.namespace, batch.metadata.name)
    return submission(folder.load() if folder.exists else None, batch, replace=replace)


def submit(state: StateDir, batch: OurObject, now: datetime, *, replace: bool) -> Submission:
    """Create the batch, or bring the one of that name to this spec. Raises `ImmutableFields`, `StateError`."""
    folder = state.batch(batch.metadata.namespace, batch.metadata.name)
    with state.editing(folder):
        planned = plan_submission(state, batch, replace=replace)
        if planned == Submission.STARTED_OVER:
            _delete(state, folder)
        if planned in (Submission.CREATED, Submission.STARTED_OVER):
            folder.write_object(created(batch, now))
        elif planned == Submission.CHANGED:
            old = folder.load()
            folder.write_object(_with_spec(old, merged_spec(old, batch).spec))
    return planned


def edit(state: StateDir, folder: BatchFolder, wish: Wish) -> None:
    """Do with a batch what somebody wants of it. Raises `EditRefused`, `StateError`."""
    with state.editing(folder):
        old = folder.load()
        asked = wish(old)
        new = _with_spec(old, old.spec.model_copy(update=asked.spec))
        annotations = {**old.metadata.annotations, **asked.annotations}
        new = new.model_copy(update={"metadata": new.metadata.model_copy(update={"annotations": annotations})})
        if new != old:
            folder.write_object(new)


def delete(state: StateDir, folder: BatchFolder) -> bool:
    """Delete a batch with its children and its default output; says whether that output was there. Raises `StateError`."""
    if not folder.path.exists():
        folder.load()  # says that there is none
    with state.running(folder), state.editing(folder):
        return _delete(state, folder)


def _delete(state: StateDir, folder: BatchFolder) -> bool:
    """Output first: a batch whose output is gone can still be deleted, an output without its batch would be nobody's."""
    for branch in _branches(state, folder):
        with state.running(branch), state.editing(branch):
            _delete(state, branch)
    if folder.pods.exists():
        Pods(folder.pods, _utc_now()).drain(_utc_now)
    output = state.output_folder(folder.namespace, folder.name)
    had_output = output.exists()
    state.discard(output)
    state.discard(folder.path)
    return had_output


def _branches(state: StateDir, folder: BatchFolder) -> list[BatchFolder]:
    """The batches that belong to a fan-out. Those of one whose files are damaged stay, and can be deleted by their names."""
    try:
        owner = folder.load()
    except StateError:
        return []
    if not isinstance(owner, FanOutJob):
        return []
    named = (state.batch(folder.namespace, owner.child_name(branch)) for branch in owner.spec.branches)
    return [child for child in named if child.exists and is_child(child.load(), owner)]


def is_child(child: OurObject, owner: FanOutJob) -> bool:
    """Whether it belongs to this very fan-out."""
    return any(reference.uid == owner.metadata.uid for reference in child.metadata.owner_references)


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _with_spec(old: OurObject, spec: ApiModel) -> OurObject:
    """The object with another spec, which is a new generation, or the same."""
    if spec == old.spec:
        return old
    metadata = old.metadata.model_copy(update={"generation": old.metadata.generation + 1})
    return old.model_copy(update={"metadata": metadata, "spec": spec})


def created(batch: OurObject, now: datetime) -> OurObject:
    """A new object, with what an API server adds to it."""
    added = {"uid": str(uuid.uuid4()), "generation": 1, "creation_timestamp": now.replace(microsecond=0)}
    return batch.model_copy(update={"metadata": batch.metadata.model_copy(update=added)})
