"""The role `finalize`: a batch has ended before its time, and every record without a result gets an error line.

Each shard that is not committed is claimed like a pod of it would, so that a pod that still runs is fenced off; what its journals
have is kept, the rest gets the batch's stop reason, and the shard is committed. Doing so twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from headrace.api.records import ErrorCode, RecordError, error_line
from headrace.api.worker import FinalizeReport, ManifestHeader, Shard, WorkerConfig
from headrace_worker.commit import ShardCommit, same_batch
from headrace_worker.errors import JobFailed, ShardFailed
from headrace_worker.evaluation.evaluate import evaluate
from headrace_worker.failures import output_failures
from headrace_worker.formats.shards import read_shard, verify_shard
from headrace_worker.journal import ShardJournal
from headrace_worker.layout import record_id
from headrace_worker.ledger import Entry
from headrace_worker.manifest import find_header, iter_shards, write_batch_manifest_if_complete
from headrace_worker.outputfiles import FileKind
from headrace_worker.stores import open_store

_AT_ONCE = 1024

_SENTENCES = {
    ErrorCode.BATCH_CANCELLED: "the batch was cancelled before this record was worked on",
    ErrorCode.BATCH_EXPIRED: "the batch's deadline passed before this record was worked on",
    ErrorCode.BATCH_FAILED: "the batch failed before this record was worked on",
    ErrorCode.TOO_MANY_FAILED_RECORDS: "too many records of the batch had failed before this one was worked on",
    ErrorCode.SHARD_FAILED: "the shard of this record was given up before it was worked on",
}


def finalize(config: WorkerConfig) -> FinalizeReport:
    """Commit every shard and write the manifest of the batch; returns its sums. A run that is done is evaluated, if it is to be.

    A batch that was stopped before it was planned has no records that anybody knows of: nothing is written, all sums are 0.
    Raises `JobFailed`: `InputChanged` when the ids of the missing records cannot be had any more, and what `plan` raises.
    """
    error = _stop_error(config.stop_reason)
    plans = open_store(config.plan_uri)
    with output_failures():
        header = find_header(plans, config.plan_uri)
        if header is None:
            return FinalizeReport()
        same_batch(header.batch, config.batch, config.plan_uri)
        for shard in iter_shards(plans, config.plan_uri):
            _close_shard(config, header, shard, error)
        manifest = write_batch_manifest_if_complete(open_store(config.output_uri), config)
        assert manifest is not None
        done = config.stop_reason is None
        evaluated = evaluate(config, config.evaluation, header) if done and config.evaluation is not None else None
    return FinalizeReport(
        records=manifest.records,
        usage=manifest.usage,
        reused=manifest.reused,
        batches=manifest.batches,
        batched_records=manifest.batched_records,
        evaluation=evaluated,
    )


def _stop_error(reason: str | None) -> RecordError:
    code = ErrorCode.BATCH_FAILED if reason is None else next((one for one in _SENTENCES if one == reason), None)
    if code is None:
        raise JobFailed("BadConfig", f"stopReason must be one of {', '.join(_SENTENCES)}, not {reason}")
    return RecordError(code, _SENTENCES[code])


def _close_shard(config: WorkerConfig, header: ManifestHeader, shard: Shard, error: RecordError) -> None:
    try:
        claimed = ShardJournal.claim(open_store(config.output_uri), config.output_uri, shard, header, config.round)
        if isinstance(claimed, ShardCommit):
            return
        with claimed as journal:
            entries = _missing(config, shard, journal, error)
            while some := list(islice(entries, _AT_ONCE)):
                journal.append(some)
            journal.commit(FileKind.of(config))
    except ShardFailed as failed:  # for this role there is no other shard to go on with
        raise JobFailed(failed.failure.reason, failed.failure.message) from failed


def _missing(config: WorkerConfig, shard: Shard, journal: ShardJournal, error: RecordError) -> Iterator[Entry]:
    """An error for each record that has neither result nor error: in a retry the one that it had, or else `error`.

    The input is read only when there is one that had none.
    """
    if journal.base is not None:
        yield from (entry for entry in journal.base.errors(shard) if not journal.ledger.is_finished(entry.position))
    if not journal.ledger.pending:
        return
    store = open_store(shard.segments[0].uri)
    verify_shard(store, shard, config.records)  # what is journaled stays, so no line may come from a changed input
    for position, request in read_shard(store, shard, config.records, config.model):
        if not journal.ledger.is_finished(position):
            tries = journal.ledger.tries(position)
            line = error_line(record_id(shard, position), request.custom_id, error, attempts=tries)
            yield Entry(position, line, failed=True)
