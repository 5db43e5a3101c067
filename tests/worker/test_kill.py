"""Real workers that are killed, stopped, told to stop, or left without room, at any moment: every record exactly once."""

from __future__ import annotations

import itertools
import os
import random
import resource
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace.api.worker import ExitCode, Role, ShardReport
from worker_rig import Folder, Worker, WorkerProcess, Zygote, chat_line, interrupted, with_stopped_workers

RECORDS = 2000
BATCH = 8
MOST_BATCHES = 20
KILLED = -signal.SIGKILL
PATIENCE_SECONDS = 180.0


def a_folder(
    path: Path, zygote: Zygote, records: int = RECORDS, latency: int = 5, disk: Path | None = None, **mock: int
) -> Folder:
    """A planned batch whose records take a while; some of them fail."""
    engine = {"name": "mock", "mock": {"latencyMilliseconds": latency, "errorPercent": 5, **mock}}
    path.mkdir(exist_ok=True)
    folder = Folder(path, {"engine": engine, "batching": {"maxBatchSize": BATCH}}, disk)
    folder.write_input(*(chat_line(number, f"How are you, {number}?" * (1 + number % 5)) for number in range(records)))
    assert zygote.run(folder, Role.PLAN).wait() == ExitCode.DONE
    return folder


def until(happened: Callable[[], bool], worker: Worker) -> None:
    """Watch until something has happened, or the worker has ended."""
    patience = time.monotonic() + PATIENCE_SECONDS
    while not happened() and not worker.ended():
        assert time.monotonic() < patience, f"nothing happened:\n{worker.log}"
        time.sleep(0.0005)


def assert_every_record_once(folder: Folder, records: int = RECORDS) -> None:
    """Each id is in results or errors once, the answer is the record's own, and the files are in the order of the input."""
    results, errors = folder.lines("results"), folder.lines("errors")
    counted = Counter(line["custom_id"] for line in results + errors)
    assert counted == Counter(f"r{number}" for number in range(records))
    for line in results:
        content = line["response"]["body"]["choices"][0]["message"]["content"]
        assert content.startswith(f"{line['custom_id']}: How are you, {line['custom_id'][1:]}?")
    for lines in (results, errors):
        numbers = [int(line["custom_id"][1:]) for line in lines]
        assert numbers == sorted(numbers)


def tried_again(folder: Folder) -> int:
    """How often records were tried again, by the attempts in the output."""
    return sum(line["attempts"] - 1 for line in folder.lines("results") + folder.lines("errors"))


def kill_somewhere(folder: Folder, worker: Worker, rng: random.Random, number: signal.Signals = signal.SIGKILL) -> int:
    """Send a signal once its journals have grown by some bytes, or some moment after they have begun to grow.

    Returns the exit code that there should be, unless the worker was done before.
    """
    before = folder.journal_bytes()
    if rng.random() < 0.5:
        growth = rng.randrange(8_000)
        until(lambda: folder.journal_bytes() > before + growth, worker)
    else:
        until(lambda: folder.journal_bytes() > before, worker)
        time.sleep(rng.random() * 0.04)  # no synchronisation: a random moment is the point
    worker.kill(number)
    return KILLED if number == signal.SIGKILL else ExitCode.DRAINED


def test_every_record_is_answered_once_although_the_worker_is_killed_a_hundred_times(
    tmp_path: Path, zygote: Zygote
) -> None:
    """Where one comes to its end before it is killed, it goes on with another batch."""
    rng, kills, reprocessed = random.Random(20260115), 0, 0
    for number in range(MOST_BATCHES):
        folder = a_folder(tmp_path / f"{number}", zygote)

        def kill(worker: Worker, folder: Folder = folder) -> int:
            return kill_somewhere(folder, worker, rng)

        killed = interrupted(folder, zygote, 100 - kills, kill)
        assert_every_record_once(folder)
        commit = folder.commit()
        assert commit["attempt"] - killed in (0, 1), (
            "each was an attempt, and the last may have been killed after its commit"
        )
        assert commit["reprocessed"] == tried_again(folder) <= killed * BATCH
        kills, reprocessed = kills + killed, reprocessed + commit["reprocessed"]
        if kills == 100:
            break
    assert kills == 100
    assert reprocessed > 0


def test_every_record_is_answered_once_although_some_records_kill_the_worker(tmp_path: Path, zygote: Zygote) -> None:
    folder = a_folder(tmp_path, zygote, latency=0, crashPercent=2)
    codes: list[int] = []
    while not codes or codes[-1] != ExitCode.DONE:
        codes.append(zygote.start(folder, Role.RUN).wait())
        assert len(codes) < 100
    assert set(codes) == {KILLED, ExitCode.DONE}
    assert_every_record_once(folder)
    assert folder.commit()["reprocessed"] == tried_again(folder) > 0


def everything_below(folder: Folder) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.output.rglob("*") if file.is_file()}


def slow_folders(path: Path, zygote: Zygote) -> Iterator[Folder]:
    """Batches of 300 records that take two seconds."""
    return (a_folder(path / f"{number}", zygote, records=300, latency=50) for number in itertools.count())


def stopped_worker(folder: Folder) -> WorkerProcess:
    """A worker that has begun, and then hears and does nothing for a while."""
    before = folder.journal_bytes()
    worker = WorkerProcess(folder, Role.RUN)
    until(lambda: folder.journal_bytes() > before + 5000, worker)
    worker.kill(signal.SIGSTOP)
    return worker


def test_a_zombie_that_wakes_after_the_commit_changes_nothing(tmp_path: Path, zygote: Zygote) -> None:
    folder, zombie = with_stopped_workers(slow_folders(tmp_path, zygote), stopped_worker, 1)
    assert zygote.run(folder, Role.RUN).wait() == ExitCode.DONE
    committed = everything_below(folder)
    zombie.kill(signal.SIGCONT)
    assert zombie.wait() in (ExitCode.DONE, ExitCode.DRAINED), zombie.log
    assert everything_below(folder) == committed
    assert_every_record_once(folder, records=300)
    assert folder.commit()["attempt"] == 2


def test_a_zombie_that_wakes_while_another_works_gives_way(tmp_path: Path, zygote: Zygote) -> None:
    folder, zombie, other = with_stopped_workers(slow_folders(tmp_path, zygote), stopped_worker, 2)
    zombie.kill(signal.SIGCONT)
    assert zombie.wait() == ExitCode.DRAINED, zombie.log
    assert not (folder.private() / "commit.json").exists()
    other.kill(signal.SIGCONT)
    assert other.wait() == ExitCode.DONE
    assert_every_record_once(folder, records=300)


def test_a_worker_that_is_told_to_stop_a_hundred_times_puts_its_work_away(tmp_path: Path, zygote: Zygote) -> None:
    rng, stops = random.Random(7), 0
    for number in range(MOST_BATCHES):
        folder, done = a_folder(tmp_path / f"{number}", zygote), [0]

        def put_away(worker: Worker, done: list[int] = done) -> None:
            report = worker.report
            assert isinstance(report, ShardReport)
            assert report.failure is None
            assert report.records.succeeded + report.records.failed >= done[-1]
            done.append(report.records.succeeded + report.records.failed)

        def stop(worker: Worker, folder: Folder = folder) -> int:
            return kill_somewhere(folder, worker, rng, rng.choice([signal.SIGTERM, signal.SIGINT]))

        stopped = interrupted(folder, zygote, 100 - stops, stop, put_away)
        log = (folder.path / f"log-{Role.RUN}").read_text()
        for attempt, records in enumerate(done, 1):
            assert f"attempt {attempt}: {records} of {RECORDS} records are done" in log
        assert_every_record_once(folder)
        assert folder.commit()["reprocessed"] == tried_again(folder) <= stopped * BATCH
        stops += stopped
        if stops == 100:
            break
    assert stops == 100


# no room


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the workers that are started in the block write no larger file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def assert_out_of_room(worker: WorkerProcess) -> None:
    assert worker.wait() == ExitCode.JOB_FAILED, worker.log
    report = worker.report
    assert isinstance(report, ShardReport)
    assert report.failure is not None
    assert report.failure.reason == "OutputFull"
    assert "make room" in report.failure.message


def test_a_worker_without_room_for_its_journal_loses_nothing(tmp_path: Path, zygote: Zygote) -> None:
    folder = a_folder(tmp_path, zygote, latency=0)
    with files_of_at_most(200_000):
        assert_out_of_room(WorkerProcess(folder, Role.RUN))
    assert zygote.run(folder, Role.RUN).wait() == ExitCode.DONE
    assert_every_record_once(folder)
    assert folder.commit()["reprocessed"] <= BATCH


def test_a_worker_without_room_for_its_results_loses_nothing(tmp_path: Path, zygote: Zygote) -> None:
    """Two journals of half the records each fit, their results in one file do not."""
    folder = a_folder(tmp_path, zygote, latency=0)
    with files_of_at_most(500_000):
        half = WorkerProcess(folder, Role.RUN)
        assert_out_of_room(half)
    with files_of_at_most(700_000):
        assert_out_of_room(WorkerProcess(folder, Role.RUN))
    assert "2000 of 2000" not in half.log
    assert not (folder.private() / "commit.json").exists()
    assert zygote.run(folder, Role.RUN).wait() == ExitCode.DONE
    assert "2000 of 2000" in half.log
    assert_every_record_once(folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two mebibytes."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", path], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield path
    subprocess.run(["umount", path], check=True)


def test_a_worker_on_a_full_disk_loses_nothing(tmp_path: Path, small_disk: Path, zygote: Zygote) -> None:
    folder = a_folder(tmp_path, zygote, latency=0, disk=small_disk)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (free_bytes(small_disk) - 900_000))
    assert_out_of_room(WorkerProcess(folder, Role.RUN))
    ballast.unlink()
    assert zygote.run(folder, Role.RUN).wait() == ExitCode.DONE
    assert_every_record_once(folder)


def free_bytes(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
