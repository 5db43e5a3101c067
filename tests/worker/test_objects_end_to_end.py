"""Batches whose input, output and journals lie in an object store: real workers, killed, stopped and fenced off."""

from __future__ import annotations

import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.api.worker import ExitCode, FinalizeReport, PlanReport, Role, ShardReport
from headrace_worker.commit import ShardCommit
from headrace_worker.errors import Drained
from headrace_worker.journal import ShardJournal
from headrace_worker.layout import ShardFolder
from headrace_worker.ledger import Entry
from headrace_worker.stores.objects import BucketStore
from object_store import BUCKET, S3, SLOW, BucketFolder
from worker_rig import (
    HEADER,
    Folder,
    Worker,
    WorkerProcess,
    Zygote,
    a_shard,
    chat_line,
    interrupted,
    with_stopped_workers,
)

BATCH = 8
KILLS = 20
KILLED = -signal.SIGKILL
PATIENCE_SECONDS = 180.0


def a_folder(
    path: Path, s3: S3, records: int, fields: dict[str, Any] | None = None, bucket: str = BUCKET, **mock: int
) -> BucketFolder:
    """A batch in the object store; some of its records fail."""
    engine = {"name": "mock", "mock": {"errorPercent": 5, **mock}}
    path.mkdir(exist_ok=True)
    usual = {"engine": engine, "batching": {"maxBatchSize": BATCH}}
    folder = BucketFolder(path, {**usual, **(fields or {})}, root=s3.folder(bucket))
    folder.write_input(*(chat_line(number, f"How are you, {number}?" * (1 + number % 5)) for number in range(records)))
    return folder


def assert_every_record_once(folder: BucketFolder, records: int) -> None:
    """Each id is in results or errors once, and in the order of the input."""
    results, errors = folder.lines("results"), folder.lines("errors")
    assert Counter(line["custom_id"] for line in results + errors) == Counter(f"r{number}" for number in range(records))
    for lines in (results, errors):
        numbers = [int(line["custom_id"][1:]) for line in lines]
        assert numbers == sorted(numbers)


def names_of(folder: BucketFolder) -> list[str]:
    return sorted(uri.removeprefix(f"{folder.root}/out/") for uri in folder.everything())


def test_plan_run_and_the_manifest(tmp_path: Path, s3: S3, zygote: Zygote) -> None:
    folder = a_folder(tmp_path, s3, 300, {"shards": 2})
    plan = zygote.run(folder, Role.PLAN)
    assert isinstance(plan.report, PlanReport)
    assert (plan.wait(), plan.report.records, plan.report.shards) == (ExitCode.DONE, 300, 2)
    for shard in (0, 1):
        run = zygote.run(folder, Role.RUN, shard)
        assert run.wait() == ExitCode.DONE, run.log
    assert_every_record_once(folder, 300)
    assert names_of(folder) == [
        "_headrace/owner.json",
        "_headrace/plan.jsonl",
        "_headrace/shards/00000/commit.json",
        "_headrace/shards/00001/commit.json",
        "errors/00000.a1.jsonl",
        "errors/00001.a1.jsonl",
        "manifest.json",
        "results/00000.a1.jsonl",
        "results/00001.a1.jsonl",
    ]
    before = folder.everything()
    assert zygote.run(folder, Role.RUN).wait() == ExitCode.DONE
    assert folder.everything() == before


def test_plan_of_a_glob_of_texts(tmp_path: Path, s3: S3, zygote: Zygote) -> None:
    folder = a_folder(tmp_path, s3, 0, {"input": {"format": "text"}, "engine": {"name": "mock"}})
    for name in ("a", "de/b%20c"):
        folder.store.put(f"{folder.root}/texts/{name}.txt", b"A text.")
    folder.places = {"input": {"uri": f"{folder.root}/texts/**/*.txt"}}
    assert zygote.run(folder, Role.PLAN).wait() == ExitCode.DONE
    assert zygote.run(folder, Role.RUN).wait() == ExitCode.DONE
    assert [line["custom_id"] for line in folder.lines("results")] == ["a.txt", "de/b c.txt"]


@pytest.mark.parametrize(
    ("years", "records"),
    [pytest.param((2020, 2200), 2, id="the window is now"), pytest.param((2020, 2021), 0, id="the window is over")],
)
def test_plan_takes_what_was_modified_in_the_window(
    tmp_path: Path, s3: S3, zygote: Zygote, years: tuple[int, int], records: int
) -> None:
    folder = a_folder(tmp_path, s3, 0, {"input": {"format": "text"}, "engine": {"name": "mock"}})
    for name in ("a", "b"):
        folder.store.put(f"{folder.root}/texts/{name}.txt", b"A text.")
    start, end = (f"{year}-01-01T00:00:00Z" for year in years)
    window = {"objects": "ModifiedInWindow", "window": {"startTime": start, "endTime": end}}
    folder.places = {"input": {"uri": f"{folder.root}/texts/*.txt", **window}}
    plan = zygote.run(folder, Role.PLAN)
    assert plan.wait() == ExitCode.DONE
    assert isinstance(plan.report, PlanReport)
    assert (plan.report.records, plan.report.error_count) == (records, 0)


def test_plan_of_a_bad_input_lists_the_lines(tmp_path: Path, s3: S3, zygote: Zygote) -> None:
    folder = a_folder(tmp_path, s3, 0)
    folder.write_input(chat_line(1), b"nonsense\n", chat_line(1))
    plan = zygote.run(folder, Role.PLAN)
    assert plan.wait() == ExitCode.DONE
    assert isinstance(plan.report, PlanReport)
    assert [error.code for error in plan.report.errors] == ["invalid_json", "duplicate_custom_id"]
    assert plan.report.errors_uri == f"{folder.root}/out/_headrace/validation.jsonl"
    assert len(folder.store.read(plan.report.errors_uri).splitlines()) == 2


@pytest.mark.parametrize(
    ("place", "reason", "message"),
    [
        pytest.param({"outputUri": "s3://no-such-bucket/out"}, "OutputNotWritable", "there is no bucket s3://no-such-bucket", id="output"),
        pytest.param({"outputUri": "s3://forbidden/out"}, "OutputNotWritable", "access is denied", id="output that is closed"),
        pytest.param({"input": {"uri": "s3://no-such-bucket/in"}}, "InputUnreadable", "there is no bucket", id="input"),
    ],
)  # fmt: skip
def test_plan_where_it_is_not_possible(
    tmp_path: Path, s3: S3, zygote: Zygote, place: dict[str, Any], reason: str, message: str
) -> None:
    folder = a_folder(tmp_path, s3, 3)
    folder.places = place
    plan = zygote.run(folder, Role.PLAN)
    assert plan.wait() == ExitCode.JOB_FAILED
    assert plan.report is not None
    assert plan.report.failure is not None
    assert plan.report.failure.reason == reason
    assert message in plan.report.failure.message


def test_a_server_that_is_down_is_no_verdict(tmp_path: Path, s3: S3, zygote: Zygote) -> None:
    folder = a_folder(tmp_path, s3, 3)
    plan = zygote.run(folder, Role.PLAN, env={"AWS_ENDPOINT_URL": "http://127.0.0.1:1"})
    assert plan.wait() not in set(ExitCode)
    assert plan.report is not None
    assert plan.report.failure is not None
    assert plan.report.failure.reason == "StoreUnreachable"
    assert "http://127.0.0.1:1 cannot be reached" in plan.report.failure.message
    assert "Traceback" not in plan.log
    assert zygote.run(folder, Role.PLAN).wait() == ExitCode.DONE


def test_finalize_gives_each_record_a_line(tmp_path: Path, s3: S3, zygote: Zygote) -> None:
    folder = a_folder(tmp_path, s3, 2000, {"stopReason": "batch_cancelled"}, latencyMilliseconds=250)
    assert zygote.run(folder, Role.PLAN).wait() == ExitCode.DONE
    worker = zygote.start(folder, Role.RUN)
    until(lambda: folder.journal_bytes() > 3000, worker)
    worker.kill()
    assert worker.wait() == KILLED
    closed = zygote.run(folder, Role.FINALIZE)
    assert closed.wait() == ExitCode.DONE, closed.log
    assert_every_record_once(folder, 2000)
    assert isinstance(closed.report, FinalizeReport)
    assert folder.lines("results")
    assert {line["error"]["code"] for line in folder.lines("errors")} >= {"batch_cancelled"}


def until(happened: Callable[[], bool], worker: Worker) -> None:
    """Watch until something has happened, or the worker has ended."""
    patience = time.monotonic() + PATIENCE_SECONDS
    while not happened() and not worker.ended():
        assert time.monotonic() < patience, f"nothing happened:\n{worker.log}"
        time.sleep(0.02)


def kill_somewhere(folder: BucketFolder, worker: Worker, rng: random.Random) -> int:
    """Kill a worker some moment after its journals have begun to grow: before, in or after its next sync."""
    before = folder.journal_bytes()
    until(lambda: folder.journal_bytes() > before, worker)
    time.sleep(rng.random() * 0.6)  # no synchronisation: a random moment is the point
    worker.kill()
    return KILLED


def test_every_record_is_answered_once_although_the_worker_is_killed_again_and_again(
    tmp_path: Path, s3: S3, zygote: Zygote
) -> None:
    records, rng = 1200, random.Random(20260115)
    folder = a_folder(tmp_path, s3, records, latencyMilliseconds=80)
    assert zygote.run(folder, Role.PLAN).wait() == ExitCode.DONE
    killed: list[Worker] = []

    def hurry_at_last(worker: Worker) -> None:
        killed.append(worker)
        if len(killed) == KILLS:
            folder.fields["engine"] = {"name": "mock", "mock": {"errorPercent": 5}}

    kills = interrupted(folder, zygote, KILLS, lambda worker: kill_somewhere(folder, worker, rng), hurry_at_last)
    assert kills >= KILLS // 2, "the machine may be late for the last ones"
    last = zygote.run(folder, Role.RUN)
    assert last.wait() == ExitCode.DONE, last.log
    assert_every_record_once(folder, records)
    commit = folder.commit()
    assert commit["attempt"] - kills in (0, 1), "the last may have been killed after its commit"
    lines = folder.lines("results") + folder.lines("errors")
    assert commit["reprocessed"] == sum(line["attempts"] - 1 for line in lines) > 0
    assert isinstance(last.report, ShardReport)
    assert last.report.committed


def test_every_record_is_answered_once_although_some_records_kill_the_worker(
    tmp_path: Path, s3: S3, zygote: Zygote
) -> None:
    """What is begun is written down before it can kill, where batches take longer than the pause between two syncs."""
    folder = a_folder(tmp_path, s3, 48, crashPercent=6, latencyMilliseconds=1100)
    assert zygote.run(folder, Role.PLAN).wait() == ExitCode.DONE
    codes: list[int] = []
    while not codes or codes[-1] != ExitCode.DONE:
        codes.append(zygote.run(folder, Role.RUN).wait())
        assert len(codes) < 20
    assert set(codes) == {KILLED, ExitCode.DONE}
    assert_every_record_once(folder, 48)


def test_a_worker_that_is_told_to_stop_puts_its_work_away(tmp_path: Path, s3: S3, zygote: Zygote) -> None:
    folder = a_folder(tmp_path, s3, 400, latencyMilliseconds=500)
    assert zygote.run(folder, Role.PLAN).wait() == ExitCode.DONE
    worker = zygote.start(folder, Role.RUN)
    until(lambda: folder.journal_bytes() > 3000, worker)
    worker.kill(signal.SIGTERM)
    assert worker.wait() == ExitCode.DRAINED, worker.log
    assert isinstance(worker.report, ShardReport)
    done = worker.report.records.succeeded + worker.report.records.failed
    assert done > 0
    folder.fields["engine"] = {"name": "mock"}
    last = zygote.run(folder, Role.RUN)
    assert f"attempt 2: {done} of 400 records are done" in last.log
    assert_every_record_once(folder, 400)


def test_every_record_is_answered_once_although_the_store_is_slow(tmp_path: Path, s3: S3, zygote: Zygote) -> None:
    """Its answers take much longer than those of the engine."""
    folder = a_folder(tmp_path, s3, 100, bucket=SLOW)
    for role in (Role.PLAN, Role.RUN):
        worker = zygote.run(folder, role)
        assert worker.wait() == ExitCode.DONE, worker.log
    assert_every_record_once(folder, 100)
    assert folder.commit()["reprocessed"] == 0


# zombies


def slow_folders(path: Path, s3: S3, zygote: Zygote) -> Iterator[BucketFolder]:
    """Batches of 300 records that take two seconds."""
    for number in itertools.count():
        folder = a_folder(path / f"{number}", s3, 300, latencyMilliseconds=50)
        assert zygote.run(folder, Role.PLAN).wait() == ExitCode.DONE
        yield folder


def stopped_worker(folder: Folder) -> WorkerProcess:
    """A worker that has begun, and then hears and does nothing for a while."""
    before = folder.journal_bytes()
    worker = WorkerProcess(folder, Role.RUN)
    until(lambda: folder.journal_bytes() > before + 2000, worker)
    worker.kill(signal.SIGSTOP)
    return worker


def test_a_zombie_that_wakes_after_the_commit_changes_nothing(tmp_path: Path, s3: S3, zygote: Zygote) -> None:
    folder, zombie = with_stopped_workers(slow_folders(tmp_path, s3, zygote), stopped_worker, 1)
    assert zygote.run(folder, Role.RUN).wait() == ExitCode.DONE
    committed = folder.everything()
    zombie.kill(signal.SIGCONT)
    assert zombie.wait() in (ExitCode.DONE, ExitCode.DRAINED), zombie.log
    left = {uri for uri in folder.everything() if uri not in committed}
    assert all(".journal." in uri for uri in left), "a zombie may leave a piece of its own journal, and nothing else"
    assert {uri: data for uri, data in folder.everything().items() if uri in committed} == committed
    assert_every_record_once(folder, 300)
    assert folder.commit()["attempt"] == 2


def test_a_zombie_that_wakes_while_another_works_gives_way(tmp_path: Path, s3: S3, zygote: Zygote) -> None:
    folder, zombie, other = with_stopped_workers(slow_folders(tmp_path, s3, zygote), stopped_worker, 2)
    zombie.kill(signal.SIGCONT)
    assert zombie.wait() == ExitCode.DRAINED, zombie.log
    assert not folder.store.exists(f"{folder.shard_uri()}commit.json")
    other.kill(signal.SIGCONT)
    assert other.wait() == ExitCode.DONE
    assert_every_record_once(folder, 300)


def claimed(root: str, records: int) -> ShardJournal:
    """A newer attempt at a shard."""
    journal = ShardJournal.claim(BucketStore(), root, a_shard(records), HEADER)
    assert isinstance(journal, ShardJournal)
    return journal


def line(number: int, who: str) -> Entry:
    return Entry(number, b'{"id": %d, "who": "%b"}\n' % (number, who.encode()))


@pytest.mark.parametrize("syncs", [True, False], ids=["whose journal reaches the store", "whose journal does not"])
def test_a_zombie_with_all_its_records_done_cannot_commit(s3: S3, syncs: bool) -> None:
    root, records = s3.folder(), 10
    zombie = claimed(root, records)
    zombie.append([line(0, "zombie")])
    zombie.sync()
    heir = claimed(root, records)
    zombie.append([line(number, "zombie") for number in range(1, records)])
    if syncs:
        zombie.sync()
    with pytest.raises(Drained, match="a newer attempt works on shard 0; attempt 1 ends here"):
        zombie.commit()
    assert heir.ledger.pending == records - 1, "what a zombie appends after it was fenced off does not count"
    heir.append([line(number, "heir") for number in range(1, records)])
    commit = heir.commit()
    assert commit.attempt == 2
    results = BucketStore().read(ShardFolder(root, 0).uri(commit.results.path))
    assert results == b"".join(line(number, "heir" if number else "zombie").line for number in range(records))
    assert zombie.commit() == commit


def test_two_attempts_that_race_for_the_commit_agree(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have found nobody newer; the store lets one win."""
    root, records = s3.folder(), 10
    first = claimed(root, records)
    first.append([line(number, "first") for number in range(records)])
    second: list[ShardCommit] = []
    real = BucketStore.put

    def put(store: BucketStore, uri: str, data: bytes, *, if_absent: bool = False) -> None:
        if uri.endswith("commit.json") and not second:
            with monkeypatch.context() as alone:
                alone.setattr(BucketStore, "put", real)
                other = claimed(root, records)
                other.append([line(number, "second") for number in range(records)])
                second.append(other.commit())
        real(store, uri, data, if_absent=if_absent)

    monkeypatch.setattr(BucketStore, "put", put)
    assert first.commit() == second[0]
    assert second[0].attempt == 2
    left = [found.uri.removeprefix(f"{root}/") for found in BucketStore().list(root)]
    assert left == ["_headrace/shards/00000/commit.json", "errors/00000.a2.jsonl", "results/00000.a2.jsonl"]
