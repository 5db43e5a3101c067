"""Running one batch to its end: as it should go, as it should not, and with the shell dying at every single write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headrace.api.inferencebatch import InferenceBatch
from headrace.api.reasons import ConditionType, Reason
from headrace.core import edits
from headrace.shells.local import containers, pods, state
from headrace.shells.local.converge import Converger, utc_now
from headrace.shells.local.files import write_atomically
from headrace.shells.local.objects import edit, submit
from headrace.shells.local.state import StateDir
from laptop import Audience, FakeWorker, Laptop, die, eventually, local_batch, processes_with


def failure(batch: InferenceBatch) -> str | None:
    """Why the batch has failed."""
    found = batch.status.condition(ConditionType.FAILED)
    return found.reason if found is not None and batch.status.is_true(ConditionType.FAILED) else None


def left_behind(worker: FakeWorker) -> list[int]:
    """Worker processes that are still there."""
    return list(processes_with("FAKE_WORKER_LOG", str(worker.log)))


def test_run_to_the_end(laptop: Laptop) -> None:
    audience = Audience()
    batch = laptop.run(audience)
    assert batch.status.is_true(ConditionType.COMPLETE)
    assert (batch.status.records.total, batch.status.records.succeeded) == (10, 10)
    assert batch.status.shards.succeeded == 2
    assert batch.status.usage.completion_tokens == 30
    assert audience.events == ["Planning", "InputValid", "Admitted", "RecordsProcessed"]
    assert laptop.worker.turns("plan") == ["0-1"]
    assert laptop.worker.turns("run") == ["0-1", "1-1"]
    assert laptop.folder.load() == batch


def test_run_of_a_finished_batch_does_nothing(laptop: Laptop) -> None:
    finished = laptop.run()
    files = {path: path.stat().st_mtime_ns for path in laptop.folder.path.rglob("*") if path.is_file()}
    assert laptop.run() == finished
    assert {path: path.stat().st_mtime_ns for path in laptop.folder.path.rglob("*") if path.is_file()} == files


def test_run_refuses_bad_input_before_any_work(laptop: Laptop) -> None:
    laptop.worker.orders(bad=3)
    batch = laptop.run()
    assert failure(batch) == Reason.INPUT_INVALID
    assert batch.status.validation is not None
    assert batch.status.validation.error_count == 3
    assert laptop.worker.turns("run") == []


def test_run_reports_a_preflight_that_cannot_be_done(laptop: Laptop) -> None:
    laptop.worker.orders(plan_exit=[44])
    batch = laptop.run()
    assert failure(batch) == Reason.WORKER_FAILED
    message = batch.status.conditions[-1].message
    assert "InputUnreadable: the disk is on fire" in message


def test_run_survives_crashes_and_drains_of_its_pods(laptop: Laptop) -> None:
    laptop.worker.orders(plan_exit=[1], exits={"0": [42, 42], "1": [1]})
    assert laptop.run().status.is_true(ConditionType.COMPLETE)
    assert laptop.worker.turns("plan") == ["0-1", "0-2"]
    assert laptop.worker.turns("run") == ["0-1", "0-2", "0-3", "1-1", "1-2"]


def test_run_gives_up_a_shard_that_cannot_be_done_and_closes_the_books(laptop: Laptop) -> None:
    laptop.worker.orders(exits={"0": [43]})
    batch = laptop.run()
    assert failure(batch) == Reason.SHARD_FAILED
    assert (batch.status.records.succeeded, batch.status.records.failed) == (5, 5)
    assert laptop.worker.turns("finalize") == ["0-1"]


def test_run_keeps_what_is_done_for_a_retry(laptop: Laptop) -> None:
    laptop.worker.orders(exits={"0": [44]})
    assert failure(laptop.run()) == Reason.WORKER_FAILED
    edit(laptop.state, laptop.folder, edits.retry)
    assert laptop.run().status.is_true(ConditionType.COMPLETE)


def test_run_takes_up_a_cancellation_while_it_works(laptop: Laptop) -> None:
    laptop.worker.orders(hold=[0])

    def cancel(batch: InferenceBatch) -> None:
        if (laptop.worker.log / "waits-0").exists() and not laptop.folder.load().spec.cancel:
            edit(laptop.state, laptop.folder, edits.cancel)

    batch = laptop.run(Audience(on_look=cancel))
    assert failure(batch) == Reason.CANCELLED
    assert laptop.worker.turns("finalize") == ["0-1"]
    assert left_behind(laptop.worker) == []


def test_run_drains_while_suspended_and_goes_on_when_resumed(laptop: Laptop) -> None:
    laptop.worker.orders(hold=[0, 1])
    seen = []

    def suspend_once(batch: InferenceBatch) -> None:
        seen.append(batch.status.is_true(ConditionType.SUSPENDED))
        if len(list(laptop.worker.log.glob("waits-*"))) == 2 and not any(seen):
            edit(laptop.state, laptop.folder, edits.suspend)
        if seen[-1]:
            assert left_behind(laptop.worker) == []
            edit(laptop.state, laptop.folder, edits.resume)

    batch = laptop.run(Audience(on_look=suspend_once))
    assert batch.status.is_true(ConditionType.COMPLETE)
    assert any(seen)
    assert batch.metadata.generation >= 3


def test_run_shows_live_progress(laptop: Laptop) -> None:
    laptop.worker.orders(hold=[0, 1], serve=True)
    audience = Audience()

    def stop_when_seen(batch: InferenceBatch) -> None:
        if batch.status.records.succeeded == 2:
            audience.requested = 1

    audience.on_look = stop_when_seen
    batch = laptop.run(audience)
    assert batch.status.records.succeeded == 2, "one record of each shard, as the pods say"
    assert {look.records_per_second for look in audience.looks} >= {"5.0"}


def test_interrupt_drains_and_a_new_run_goes_on(laptop: Laptop) -> None:
    laptop.worker.orders(hold=[0, 1])
    audience = Audience()

    def interrupt(_: InferenceBatch) -> None:
        audience.requested = int(len(list(laptop.worker.log.glob("waits-*"))) == 2)

    audience.on_look = interrupt
    batch = laptop.run(audience)
    assert not batch.status.finished
    assert batch.status.shards.active == 0
    assert left_behind(laptop.worker) == []
    assert laptop.run().status.is_true(ConditionType.COMPLETE)
    assert laptop.worker.turns("plan") == ["0-1"], "what was done is not done again"


def test_run_leaves_no_process_behind_when_something_breaks(laptop: Laptop, monkeypatch: pytest.MonkeyPatch) -> None:
    laptop.worker.orders(hold=[0, 1])

    def full(_: Any) -> None:
        if len(list(laptop.worker.log.glob("waits-*"))) == 2:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        laptop.run(Audience(on_look=full))
    assert left_behind(laptop.worker) == []


@dataclass
class Power:
    """Fails at one write: the shell is killed before it, or after."""

    fails_at: int
    writes: int = 0

    def write(self, path: Path, data: bytes) -> None:
        self.writes += 1
        if self.writes == self.fails_at:
            raise PowerCut
        write_atomically(path, data)


class PowerCut(BaseException):
    """The shell is no more."""


def work_until_cut(make: Callable[[], Converger]) -> None:
    """Look again and again, as `run` does, but without the tidying up that a kill leaves out."""
    converger, audience = make(), Audience()
    try:
        status, _ = converger.look(audience)
        while not status.finished:
            converger.cluster.pods.poll(utc_now())
            status, _ = converger.look(audience)
    except PowerCut:
        die(converger.cluster.pods)
        raise


WRITES = 40
"""More than a run of two shards takes; `test_every_write_is_tried` counts them."""


@pytest.mark.parametrize("cut", range(1, WRITES))
def test_run_goes_on_after_a_power_cut_at_any_write(
    state: StateDir, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    laptop = Laptop(state, state.batch("default", "reviews"), worker)
    power = Power(cut)
    for module in _WRITERS:
        monkeypatch.setattr(module, "write_atomically", power.write)
    try:
        laptop.submit(local_batch().build())
        work_until_cut(laptop.converger)
    except PowerCut:
        laptop.submit(local_batch().build())
        work_until_cut(laptop.converger)
    batch = laptop.folder.load()
    assert batch.status.is_true(ConditionType.COMPLETE)
    assert batch.status.records.succeeded == 10
    assert [job.complete for job in laptop.converger().cluster.jobs()] == [True, True]
    eventually(lambda: not left_behind(worker))


def test_every_write_is_tried(laptop: Laptop, monkeypatch: pytest.MonkeyPatch) -> None:
    power = Power(0, writes=1)  # the submission
    for module in _WRITERS:
        monkeypatch.setattr(module, "write_atomically", power.write)
    laptop.run()
    assert 15 < power.writes < WRITES


_WRITERS = (containers, pods, state)


def test_submit_in_the_middle_of_a_delete(laptop: Laptop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output goes first: what is left is a batch that can be started over, or is gone."""
    laptop.run()
    output = laptop.state.output_folder("default", "reviews")
    output.mkdir(parents=True)
    discard = StateDir.discard
    done: list[Path] = []

    def cut_after_the_first(self: StateDir, path: Path) -> None:
        if done:
            raise PowerCut
        done.append(path)
        discard(self, path)

    monkeypatch.setattr(StateDir, "discard", cut_after_the_first)
    with pytest.raises(PowerCut):
        laptop.submit(local_batch().build(), replace=True)
    monkeypatch.undo()
    assert done == [output]
    submit(laptop.state, local_batch().build(), utc_now(), replace=True)
    assert not laptop.folder.load().status.finished
