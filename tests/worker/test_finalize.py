"""The role `finalize`, and the manifest of a whole batch."""

from __future__ import annotations

import hashlib
from pathlib import Path

import orjson
import pytest

from headrace.api.output import BatchManifest
from headrace.api.records import ErrorCode, RecordError, error_line, result_line
from headrace.api.worker import FinalizeReport, WorkerConfig
from headrace_worker.commit import ShardCommit
from headrace_worker.errors import Drained, JobFailed
from headrace_worker.finalize import finalize
from headrace_worker.journal import ShardJournal
from headrace_worker.layout import record_id
from headrace_worker.ledger import Entry, Used
from headrace_worker.manifest import iter_shards, read_header, read_shard_entry, write_batch_manifest_if_complete
from headrace_worker.outputfiles import FileKind
from headrace_worker.planning.plan import plan
from headrace_worker.stores.local import LocalStore
from worker_builders import NOW, a_chat, a_config, no_progress, write_files

STORE = LocalStore()


@pytest.fixture
def config(tmp_path: Path) -> WorkerConfig:
    """A planned batch of six records in two shards, that was then cancelled."""
    write_files(tmp_path, {"in.jsonl": [a_chat(f"r{number}") for number in range(6)]})
    config = a_config(tmp_path, shards=2, stopReason="batch_cancelled", parameters={"max_tokens": 8})
    assert plan(config, None, NOW, no_progress).shards == 2
    return config


def claim(config: WorkerConfig, index: int) -> ShardJournal:
    header = read_header(STORE, config.plan_uri)
    claimed = ShardJournal.claim(STORE, config.output_uri, read_shard_entry(STORE, config.plan_uri, index), header)
    assert isinstance(claimed, ShardJournal)
    return claimed


def work(config: WorkerConfig, index: int, *positions: int) -> ShardJournal:
    """A pod that has done some records of a shard: those at odd positions have failed."""
    journal, shard = claim(config, index), read_shard_entry(STORE, config.plan_uri, index)
    for position in positions:
        custom_id, record = f"r{shard.first_record + position}", record_id(shard, position)
        error = RecordError(ErrorCode.MOCK_ERROR, "made to fail")
        line = error_line(record, custom_id, error, 1) if position % 2 else result_line(record, custom_id, {}, 1)
        journal.append([Entry(position, line, bool(position % 2), prompt_tokens=5, completion_tokens=2)])
    journal.note(Used(gpu_seconds=3.0, batches=1, batched_records=len(positions)))
    journal.sync()
    return journal


def output_rows(config: WorkerConfig, kind: str) -> list[tuple[str, str | None, int]]:
    """`custom_id`, error code and attempts of every line in the files that the manifest names."""
    folder = config.output_uri.rstrip("/")
    manifest = BatchManifest.model_validate_json(STORE.read(f"{folder}/manifest.json"))
    files = [getattr(shard, kind) for shard in manifest.shards]
    contents = [STORE.read(f"{folder}/{file.path}") for file in files]
    assert [hashlib.sha256(content).hexdigest() for content in contents] == [file.sha256 for file in files]
    rows = [orjson.loads(row) for content in contents for row in content.splitlines()]
    return [(row["custom_id"], (row["error"] or {}).get("code"), row["attempts"]) for row in rows]


def test_finalize_keeps_what_is_done_and_gives_the_rest_an_error(config: WorkerConfig) -> None:
    with work(config, 0, 0, 1), work(config, 1, 2):
        report = finalize(config)
    assert output_rows(config, "results") == [("r0", None, 1), ("r5", None, 1)]
    assert output_rows(config, "errors") == [
        ("r1", "mock_error", 1),
        ("r2", "batch_cancelled", 0),
        ("r3", "batch_cancelled", 0),
        ("r4", "batch_cancelled", 0),
    ]
    assert (report.records.total, report.records.succeeded, report.records.failed) == (6, 2, 4)
    assert (report.usage.prompt_tokens, report.usage.completion_tokens, report.usage.gpu_seconds) == (15, 6, 6)
    assert (report.batches, report.batched_records) == (2, 3)


def test_finalize_of_shards_that_nobody_has_begun(config: WorkerConfig) -> None:
    report = finalize(config)
    assert (report.records.total, report.records.failed) == (6, 6)
    assert [custom_id for custom_id, _, _ in output_rows(config, "errors")] == [f"r{number}" for number in range(6)]


def test_finalize_leaves_a_committed_shard_as_it_is(config: WorkerConfig) -> None:
    with work(config, 0, 0, 1, 2) as journal:
        commit = journal.commit()
    finalize(config)
    assert STORE.read(f"{config.output_uri}{commit.results.path}").count(b"\n") == 2
    assert output_rows(config, "results") == [("r0", None, 1), ("r2", None, 1)]


def test_finalize_fences_off_a_pod_that_still_runs(config: WorkerConfig) -> None:
    with work(config, 0, 0) as zombie:
        finalize(config)
        before = STORE.read(f"{config.output_uri}manifest.json")
        zombie.append(
            [Entry(position, result_line("x", f"r{position}", {"late": True}, 1)) for position in range(1, 3)]
        )
        commit = zombie.commit()
    assert (commit.attempt, commit.records.failed) == (2, 2)
    assert finalize(config).records.succeeded == 1
    assert STORE.read(f"{config.output_uri}manifest.json") == before


def test_finalize_twice_writes_the_same_bytes(config: WorkerConfig, tmp_path: Path) -> None:
    report = finalize(config)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert finalize(config) == report
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_finalize_without_a_reason_says_that_the_batch_failed(config: WorkerConfig) -> None:
    finalize(config.model_copy(update={"stop_reason": None}))
    assert {code for _, code, _ in output_rows(config, "errors")} == {"batch_failed"}


def test_finalize_with_an_unknown_reason(config: WorkerConfig) -> None:
    with pytest.raises(JobFailed, match=r"stopReason must be one of batch_cancelled, .*, not engine_error"):
        finalize(config.model_copy(update={"stop_reason": "engine_error"}))


def test_finalize_of_a_batch_that_was_never_planned(tmp_path: Path) -> None:
    assert finalize(a_config(tmp_path, stopReason="batch_cancelled")) == FinalizeReport()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [None, a_chat("other") * 6])
def test_finalize_of_an_input_that_is_not_what_it_was(
    config: WorkerConfig, tmp_path: Path, content: bytes | None
) -> None:
    (tmp_path / "in.jsonl").unlink()
    if content is not None:
        write_files(tmp_path, {"in.jsonl": content})
    with pytest.raises(JobFailed, match=r"in\.jsonl .* since the input was planned") as raised:
        finalize(config)
    assert raised.value.failure.reason == "InputChanged"
    write_files(tmp_path, {"in.jsonl": [a_chat(f"r{number}") for number in range(6)]})
    assert finalize(config).records.failed == 6
    assert [custom_id for custom_id, _, _ in output_rows(config, "errors")] == [f"r{number}" for number in range(6)]


def test_finalize_needs_no_input_when_every_record_is_done(config: WorkerConfig, tmp_path: Path) -> None:
    with work(config, 0, 0, 1, 2), work(config, 1, 0, 1, 2):
        (tmp_path / "in.jsonl").unlink()
        assert finalize(config).records.succeeded == 4


def test_finalize_of_another_batch_in_the_same_folder(config: WorkerConfig) -> None:
    other = config.model_copy(update={"batch": config.batch.model_copy(update={"uid": "uid-2"})})
    with pytest.raises(JobFailed, match="uid-1") as raised:
        finalize(other)
    assert raised.value.failure.reason == "OutputInUse"


def test_finalize_with_a_damaged_journal(config: WorkerConfig, tmp_path: Path) -> None:
    write_files(tmp_path / "out/_headrace/shards/00000", {"a1.journal": b"rubbish\n"})
    with pytest.raises(JobFailed, match=r"a1\.journal") as raised:
        finalize(config)
    assert raised.value.failure.reason == "JournalDamaged"


def test_finalize_that_is_overtaken_stops(config: WorkerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = ShardJournal.commit

    def overtaken(journal: ShardJournal, *_: FileKind) -> ShardCommit:
        monkeypatch.setattr(ShardJournal, "commit", commit)
        with claim(config, 0):
            return commit(journal)

    monkeypatch.setattr(ShardJournal, "commit", overtaken)
    with pytest.raises(Drained):
        finalize(config)
    assert finalize(config).records.failed == 6


def test_write_batch_manifest_waits_for_the_last_shard(config: WorkerConfig, tmp_path: Path) -> None:
    for index in (1, 0):
        assert write_batch_manifest_if_complete(STORE, config) is None
        assert not (tmp_path / "out/manifest.json").exists()
        with work(config, index, 0, 1, 2) as journal:
            journal.commit()
    manifest = write_batch_manifest_if_complete(STORE, config)
    assert manifest is not None
    assert BatchManifest.model_validate_json((tmp_path / "out/manifest.json").read_bytes()) == manifest
    assert (manifest.batch, manifest.created, manifest.parameters) == (config.batch, NOW, {"max_tokens": 8})
    assert manifest.plan_sha256 == hashlib.sha256(STORE.read(config.plan_uri)).hexdigest()
    assert [shard.results.path for shard in manifest.shards] == ["results/00000.a1.jsonl", "results/00001.a1.jsonl"]
    assert [shard.errors.records for shard in manifest.shards] == [1, 1]


def test_write_batch_manifest_is_the_same_whoever_writes_it(config: WorkerConfig, tmp_path: Path) -> None:
    finalize(config)
    by_finalize = (tmp_path / "out/manifest.json").read_bytes()
    (tmp_path / "out/manifest.json").unlink()
    running = config.model_copy(update={"stop_reason": None})
    assert write_batch_manifest_if_complete(STORE, running) is not None
    assert (tmp_path / "out/manifest.json").read_bytes() == by_finalize


def test_finalize_answers_every_record_once_however_much_was_done(tmp_path: Path) -> None:
    write_files(tmp_path / "in", {"a.jsonl": [a_chat(f"r{number}") for number in range(2500)]})
    config = a_config(tmp_path, source="in", shards=1, stopReason="batch_expired")
    plan(config, None, NOW, no_progress)
    (shard,) = iter_shards(STORE, config.plan_uri)
    with work(config, 0, *range(0, shard.records, 3)):
        report = finalize(config)
    answered = [custom_id for kind in ("results", "errors") for custom_id, _, _ in output_rows(config, kind)]
    assert sorted(answered) == sorted(f"r{number}" for number in range(2500))
    assert report.records.total == report.records.succeeded + report.records.failed == 2500
