"""Many batches in one process: so many at a time, none of them lost."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from headrace.api.inferencebatch import InferenceBatch
from headrace.core import edits
from headrace.shells.local import objects
from headrace.shells.local.converge import utc_now
from headrace.shells.local.files import Busy
from headrace.shells.local.runs import Runs
from headrace.shells.local.state import BatchFolder, StateDir
from laptop import Audience, FakeWorker, eventually, local_batch

Submit = Callable[[str], InferenceBatch]


@pytest.fixture
def submit(state: StateDir) -> Submit:
    """A batch of one shard in the state folder."""

    def submitted(name: str) -> InferenceBatch:
        objects.submit(state, local_batch(name).sharded(1).build(), utc_now(), replace=False)
        return state.batch("default", name).load_batch()

    return submitted


def runs(state: StateDir, worker: FakeWorker, most: int = 1) -> Runs:
    return Runs(state, Audience(), most, worker.programs)


def finished(state: StateDir, *names: str) -> bool:
    return all(state.batch("default", name).load().status.finished for name in names)


def test_runs_see_all_batches_to_their_ends(state: StateDir, worker: FakeWorker, submit: Submit) -> None:
    worker.orders(shards=1)
    with runs(state, worker, most=2) as at_work:
        for name in ("a", "b", "c"):
            at_work.take_up(submit(name))
        eventually(lambda: finished(state, "a", "b", "c"))


def test_runs_begin_no_more_than_there_is_room_for(state: StateDir, worker: FakeWorker, submit: Submit) -> None:
    worker.orders(shards=1, hold=[0])
    with runs(state, worker) as at_work:
        at_work.take_up(submit("first"))
        eventually((worker.log / "waits-0").exists)
        at_work.take_up(submit("second"))
        third = submit("third")
        objects.edit(state, state.batch("default", "third"), edits.cancel)
        at_work.take_up(state.batch("default", "third").load_batch())
        eventually(lambda: finished(state, "third"))
        assert not finished(state, "first", "second")
        assert not state.batch("default", "second").pods.exists()
        assert third.metadata.name == "third"


def test_runs_that_are_ended_put_work_away_and_others_go_on(
    state: StateDir, worker: FakeWorker, submit: Submit
) -> None:
    worker.orders(shards=1, hold=[0])
    batch = submit("a")
    with runs(state, worker) as at_work:
        at_work.take_up(batch)
        eventually((worker.log / "waits-0").exists)
    assert not finished(state, "a")
    assert state.runner(state.batch("default", "a")) is None
    with runs(state, worker) as later:
        later.take_up(batch)
        eventually(lambda: finished(state, "a"))


def test_runs_leave_alone_what_another_process_runs(state: StateDir, worker: FakeWorker, submit: Submit) -> None:
    worker.orders(shards=1)
    with runs(state, worker) as at_work:
        with state.running(state.batch("default", "a")):
            at_work.take_up(submit("a"))
            at_work.take_up(submit("b"))
            eventually(lambda: finished(state, "b"))
            assert not finished(state, "a")
        eventually(lambda: finished(state, "a"))


def test_runs_go_on_beside_a_batch_whose_files_are_damaged(
    state: StateDir, worker: FakeWorker, submit: Submit, caplog: pytest.LogCaptureFixture
) -> None:
    worker.orders(shards=1)
    with runs(state, worker) as at_work:
        batch = submit("a")
        (state.batch("default", "a").path / "object.json").write_text("{")
        at_work.take_up(batch)
        at_work.take_up(submit("b"))
        eventually(lambda: finished(state, "b"))
    assert "cannot be read" in caplog.text


def test_runs_go_on_after_files_could_not_be_opened_for_a_moment(
    state: StateDir,
    worker: FakeWorker,
    submit: Submit,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker.orders(shards=1)
    looked, failures = state.runner, [OSError(errno.EMFILE, "too many open files")]

    def runner(folder: BatchFolder) -> Busy | None:
        if failures:
            raise failures.pop()
        return looked(folder)

    monkeypatch.setattr(state, "runner", runner)
    with runs(state, worker) as at_work:
        at_work.take_up(submit("a"))
        eventually(lambda: finished(state, "a"))
    assert "too many open files" in caplog.text


def test_runs_give_the_place_of_a_batch_that_rests_to_the_next(
    state: StateDir, worker: FakeWorker, submit: Submit
) -> None:
    worker.orders(shards=1, hold=[0])
    with runs(state, worker) as at_work:
        at_work.take_up(submit("a"))
        eventually((worker.log / "waits-0").exists)
        objects.edit(state, state.batch("default", "a"), edits.suspend)
        at_work.take_up(submit("b"))
        eventually(lambda: finished(state, "b"))
        objects.edit(state, state.batch("default", "a"), edits.resume)
        eventually(lambda: finished(state, "a"))
