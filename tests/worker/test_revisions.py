"""A retry of the batch on shards that are committed: what has failed is done once more, and all else is kept as it is."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace.api.batchstatus import Usage
from headrace.api.records import ErrorCode, RecordError, error_line, result_line
from headrace_worker.commit import ShardCommit
from headrace_worker.errors import Drained, ShardFailed
from headrace_worker.finalize import finalize
from headrace_worker.journal import ShardJournal
from headrace_worker.layout import ShardFolder, output_id
from headrace_worker.ledger import Entry, Used
from headrace_worker.main import main
from headrace_worker.manifest import write_batch_manifest_if_complete
from headrace_worker.planning.plan import plan
from headrace_worker.revisions import committed_folders
from headrace_worker.stores.base import Store
from headrace_worker.stores.local import LocalStore, file_uri
from worker_builders import NOW, a_chat, a_config, no_progress, write_files
from worker_rig import HEADER, Died, MortalStore, a_shard

RECORDS = 10
FAILED = (2, 5, 9)
SHARD = a_shard(RECORDS)
STORE = LocalStore()


def entry(position: int, *, failed: bool = False, by: str = "first", tries: int = 1) -> Entry:
    custom_id, error = f"r{position}", RecordError(ErrorCode.MOCK_ERROR, by)
    line = (
        error_line(output_id(position), custom_id, error, tries)
        if failed
        else result_line(output_id(position), custom_id, {"by": by}, tries)
    )
    return Entry(position, line, failed, prompt_tokens=3, completion_tokens=2)


def claim(output: str, round_: int, store: Store = STORE) -> ShardJournal | ShardCommit:
    return ShardJournal.claim(store, output, SHARD, HEADER, round_)


def claimed(output: str, round_: int, store: Store = STORE) -> ShardJournal:
    journal = claim(output, round_, store)
    assert isinstance(journal, ShardJournal)
    return journal


@pytest.fixture
def output(tmp_path: Path) -> str:
    """A shard that is committed with three errors."""
    uri = file_uri(str(tmp_path / "out"))
    with claimed(uri, 0) as journal:
        journal.begin(range(RECORDS))
        journal.append(entry(position, failed=position in FAILED) for position in range(RECORDS))
        journal.note(Used(gpu_seconds=4, batches=2, batched_records=RECORDS))
        journal.commit()
    return uri


def mend(journal: ShardJournal, *positions: int, failed: tuple[int, ...] = ()) -> None:
    journal.begin([*positions, *failed])
    tries = journal.ledger.tries
    journal.append(entry(position, by="second", tries=tries(position)) for position in positions)
    journal.append(entry(position, failed=True, by="second", tries=tries(position)) for position in failed)


def lines(output: str, path: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in STORE.read(f"{output}/{path}").splitlines()]


def said(output: str, commit: ShardCommit) -> list[tuple[str, str]]:
    """Of each result, in the order of the file: its `custom_id` and who has made it."""
    return [(row["custom_id"], row["response"]["body"]["by"]) for row in lines(output, commit.results.path)]


def names(output: str) -> list[str]:
    root = Path(output.removeprefix("file://"))
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_retry_redoes_what_has_failed_and_keeps_the_rest(output: str) -> None:
    with claimed(output, 1) as journal:
        ledger = journal.ledger
        assert [position for position in range(RECORDS) if not ledger.is_finished(position)] == list(FAILED)
        assert (ledger.counts.succeeded, ledger.pending) == (7, 3)
        mend(journal, 2, 9, failed=(5,))
        commit = journal.commit()
    kept = [(f"r{position}", "second" if position in (2, 9) else "first") for position in range(RECORDS)]
    kept.remove(("r5", "first"))
    assert said(output, commit) == kept
    assert [(row["custom_id"], row["attempts"]) for row in lines(output, commit.errors.path)] == [("r5", 2)]
    assert (commit.round, commit.records.succeeded, commit.records.failed) == (1, 9, 1)
    assert commit.usage == Usage(prompt_tokens=39, completion_tokens=26, gpu_seconds=4), "what both have cost"
    assert (commit.batches, commit.batched_records, commit.reprocessed) == (2, 10, 0)
    assert names(output) == [
        "_headrace/shards/00000.r1/commit.json",
        "_headrace/shards/00000/commit.json",
        "errors/00000.r1.a1.jsonl",
        "results/00000.r1.a1.jsonl",
    ]


def test_a_retry_leaves_a_shard_without_errors_as_it_is(output: str) -> None:
    with claimed(output, 1) as journal:
        mend(journal, *FAILED)
        whole = journal.commit()
    before = names(output)
    assert claim(output, 1) == claim(output, 2) == whole
    assert names(output) == before


def test_each_retry_goes_on_from_the_one_before(output: str) -> None:
    with claimed(output, 1) as journal:
        mend(journal, 2, failed=(5, 9))
        journal.commit()
    with claimed(output, 3) as journal:
        mend(journal, 5, failed=(9,))
        commit = journal.commit()
    assert [row["attempts"] for row in lines(output, commit.errors.path)] == [3]
    assert [name for name in names(output) if "commit" not in name] == [commit.errors.path, commit.results.path]
    assert committed_folders(STORE, output) == {0: ShardFolder(output, 0, 2)}


def test_a_worker_of_an_earlier_retry_comes_too_late(output: str) -> None:
    first = claim(output, 0)
    with claimed(output, 1) as journal:
        mend(journal, *FAILED)
        journal.commit()
    before = names(output)
    assert claim(output, 0) == first, "it finds the commit of its own retry"
    assert names(output) == before, "and sweeps up nothing of a later one"


def test_two_workers_of_one_retry_are_kept_apart(output: str) -> None:
    with claimed(output, 1) as slow, claimed(output, 1) as fast:
        mend(slow, *FAILED)
        with pytest.raises(Drained):
            slow.commit()
        mend(fast, 2, failed=(5, 9))
        commit = fast.commit()
        assert slow.commit() == commit
    assert [row["custom_id"] for row in lines(output, commit.errors.path)] == ["r5", "r9"]


@pytest.mark.parametrize("dies_at", range(1, 16))
def test_a_retry_that_is_killed_anywhere_ends_in_the_same_bytes(output: str, dies_at: int) -> None:
    def mended(store: Store) -> ShardCommit:
        found = claim(output, 1, store)
        if isinstance(found, ShardCommit):
            return found
        with found as journal:
            left = [position for position in FAILED if not journal.ledger.is_finished(position)]
            journal.append(entry(position, by="second") for position in left)
            return journal.commit()

    with suppress(Died):
        mended(MortalStore(dies_at=dies_at))
    commit = mended(STORE)
    assert said(output, commit) == [
        (f"r{position}", "second" if position in FAILED else "first") for position in range(RECORDS)
    ]
    assert [name for name in names(output) if "commit" not in name] == [commit.errors.path, commit.results.path]


def test_errors_that_an_earlier_retry_has_not_committed_are_tried_again(tmp_path: Path) -> None:
    output = file_uri(str(tmp_path / "out"))
    with claimed(output, 0) as journal:
        journal.begin(range(4))
        journal.append(entry(position, failed=position == 1) for position in range(4))
        journal.sync()
    with claimed(output, 0) as again:
        assert again.ledger.is_finished(1), "within one retry an error is the last word"
    with claimed(output, 1) as retried:
        assert [position for position in range(4) if not retried.ledger.is_finished(position)] == [1]
        retried.begin([1])
        assert retried.ledger.counts.reprocessed == 0, "no work was lost"
        retried.append([entry(1, failed=True, by="second")])
        retried.sync()
    with claimed(output, 1) as once_more:
        assert once_more.ledger.is_finished(1)
        assert once_more.ledger.counts.failed == 1


def test_results_that_somebody_has_changed_are_not_committed_again(output: str) -> None:
    path = Path(output.removeprefix("file://")) / "results/00000.a1.jsonl"
    path.write_bytes(path.read_bytes().replace(b"first", b"other", 1))
    with claimed(output, 1) as journal:
        mend(journal, *FAILED)
        with pytest.raises(ShardFailed, match=r"results/00000.a1.jsonl is not what was committed"):
            journal.commit()


def test_finalize_of_a_retry_leaves_each_record_the_error_that_it_had(tmp_path: Path) -> None:
    write_files(tmp_path, {"in.jsonl": [a_chat(f"r{number}") for number in range(4)]})
    config = a_config(tmp_path, stopReason="batch_cancelled", engine={"name": "mock", "mock": {"errorPercent": 100}})
    plan(config, None, NOW, no_progress)
    assert finalize(config).records.failed == 4
    again = config.model_copy(update={"round": 1, "stop_reason": "batch_expired"})
    report = finalize(again)
    assert report.records.failed == 4
    (errors,) = (tmp_path / "out/errors").glob("*.jsonl")
    rows = [orjson.loads(line) for line in errors.read_bytes().splitlines()]
    assert {row["error"]["code"] for row in rows} == {"batch_cancelled"}
    manifest = write_batch_manifest_if_complete(STORE, again)
    assert manifest is not None
    assert manifest.shards[0].errors.path == "errors/00000.r1.a1.jsonl"


def test_results_are_those_of_the_newest_revision(output: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with claimed(output, 1) as journal:
        mend(journal, *FAILED)
        journal.commit()
    assert main(["results", "--all", "--output", output]) == 0
    rows = [orjson.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [row["custom_id"] for row in rows] == [f"r{position}" for position in range(RECORDS)]
