"""What a user may do to a batch: submit it again, change it, cancel, retry, delete."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from builders import BatchBuilder
from headrace.api.reasons import ConditionType
from headrace.core import edits
from headrace.core.edits import EditRefused, ImmutableFields, Submission
from headrace.shells.local.objects import delete, edit, plan_submission
from headrace.shells.local.state import StateDir, StateError
from laptop import Audience, Laptop, local_batch

Change = Callable[[BatchBuilder], BatchBuilder]


@pytest.mark.parametrize(
    ("change", "expected", "generation"),
    [
        pytest.param(lambda b: b, Submission.UNCHANGED, 1, id="the same again"),
        pytest.param(lambda b: b.with_spec(parallelism=1), Submission.CHANGED, 2, id="another parallelism"),
        pytest.param(lambda b: b.with_spec(suspend=True), Submission.CHANGED, 2, id="suspended"),
        pytest.param(lambda b: b.with_spec(priority=0), Submission.UNCHANGED, 1, id="a default written out"),
    ],
)
def test_submit_again(laptop: Laptop, change: Change, expected: Submission, generation: int) -> None:
    before = laptop.folder.load()
    assert laptop.submit(change(local_batch()).build()) == expected
    after = laptop.folder.load()
    assert (after.metadata.uid, after.metadata.generation) == (before.metadata.uid, generation)


def test_submit_gives_a_new_object_what_an_api_server_would(laptop: Laptop) -> None:
    metadata = laptop.folder.load().metadata
    assert len(metadata.uid) == 36
    assert metadata.generation == 1
    assert metadata.creation_timestamp is not None


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        pytest.param(lambda b: b.sharded(3), ["shards"], id="other shards"),
        pytest.param(
            lambda b: b.with_spec(model={"name": "x"}, failurePolicy={"maxFailedRecords": 1}),
            ["model", "failurePolicy"],
            id="two fields",
        ),
    ],
)
def test_submit_refuses_to_change_what_results_depend_on(laptop: Laptop, change: Change, fields: list[str]) -> None:
    before = laptop.folder.load()
    with pytest.raises(ImmutableFields) as raised:
        laptop.submit(change(local_batch()).build())
    assert raised.value.fields == fields
    assert laptop.folder.load() == before


def test_submit_with_replace_starts_over(laptop: Laptop) -> None:
    before = laptop.run()
    kept = laptop.state.root / "output" / "default" / "other"
    gone = laptop.state.output_folder("default", "reviews")
    for folder in (kept, gone):
        folder.mkdir(parents=True)
    assert laptop.submit(local_batch().sharded(3).build(), replace=True) == Submission.STARTED_OVER
    after = laptop.folder.load()
    assert after.metadata.uid != before.metadata.uid
    assert not after.status.conditions
    assert laptop.folder.children("jobs") == []
    assert kept.exists()
    assert not gone.exists()


def test_submit_starts_over_when_the_input_was_refused(laptop: Laptop) -> None:
    laptop.worker.orders(bad=1)
    laptop.run()
    laptop.worker.orders()
    assert laptop.submit(local_batch().build()) == Submission.STARTED_OVER
    assert laptop.run().status.is_true(ConditionType.COMPLETE)


def test_submit_leaves_a_batch_that_failed_at_work_as_it_is(laptop: Laptop) -> None:
    laptop.worker.orders(exits={"0": [43]})
    failed = laptop.run()
    assert laptop.submit(local_batch().build()) == Submission.UNCHANGED
    assert laptop.folder.load() == failed


def test_submit_does_not_take_back_a_cancellation(laptop: Laptop) -> None:
    edit(laptop.state, laptop.folder, edits.cancel)
    assert laptop.submit(local_batch().build()) == Submission.UNCHANGED
    with pytest.raises(ImmutableFields):
        laptop.submit(local_batch().with_spec(cancel=False).build())


def test_plan_submission_changes_nothing(state: StateDir) -> None:
    assert plan_submission(state, local_batch().build(), replace=True) == Submission.CREATED
    assert not state.root.exists()


def test_edit_counts_generations(laptop: Laptop) -> None:
    edit(laptop.state, laptop.folder, edits.suspend)
    edit(laptop.state, laptop.folder, edits.suspend)
    batch = laptop.folder.load()
    assert (batch.spec.suspend, batch.metadata.generation) == (True, 2)


def test_edit_of_a_finished_batch_says_that_it_is_too_late(laptop: Laptop) -> None:
    laptop.run()
    with pytest.raises(EditRefused, match=r"^reviews is complete already: nothing is left to be changed$"):
        edit(laptop.state, laptop.folder, edits.cancel)


def test_edit_to_retry_a_batch_that_has_not_failed(laptop: Laptop) -> None:
    with pytest.raises(EditRefused, match=r"^reviews has not failed: there is nothing to retry$"):
        edit(laptop.state, laptop.folder, edits.retry)
    laptop.run()
    with pytest.raises(EditRefused, match=r"^reviews is complete: there is nothing to retry$"):
        edit(laptop.state, laptop.folder, edits.retry)


def test_delete_removes_the_batch_and_its_default_output(laptop: Laptop) -> None:
    output = laptop.state.output_folder("default", "reviews")
    output.mkdir(parents=True)
    assert delete(laptop.state, laptop.folder)
    assert not laptop.folder.path.exists()
    assert not output.exists()
    with pytest.raises(StateError, match="there is no InferenceBatch or FanOutJob reviews"):
        delete(laptop.state, laptop.folder)


def test_delete_leaves_an_output_that_the_user_has_named(laptop: Laptop, tmp_path: Path) -> None:
    named = tmp_path / "named"
    named.mkdir()
    laptop.submit(local_batch().with_spec(output={"uri": f"file://{named}"}).build(), replace=True)
    assert not delete(laptop.state, laptop.folder)
    assert named.exists()


def test_delete_of_a_damaged_batch(laptop: Laptop) -> None:
    (laptop.folder.path / "object.json").write_text("{")
    delete(laptop.state, laptop.folder)
    assert not laptop.folder.path.exists()


def test_delete_refuses_while_somebody_runs_the_batch(laptop: Laptop) -> None:
    with (
        laptop.state.running(laptop.folder),
        pytest.raises(StateError, match="reviews is already held by process"),
    ):
        delete(laptop.state, laptop.folder)
    assert laptop.run(Audience()).status.finished
