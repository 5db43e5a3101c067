"""Counting records: final reports are taken in once, live reports go on top, and progress never runs backwards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from headrace.api.batchstatus import Batched, CountedShards, InferenceBatchStatus, RecordCounts, Usage
from headrace.api.ranges import format_ranges, parse_ranges
from headrace.api.reuse import Reused
from headrace.api.worker import FinalizeReport, ShardReport


@dataclass(frozen=True, slots=True)
class Tally:
    """What all reports say together."""

    counted: CountedShards
    """Sums of the final reports alone, of the shards in which no record has failed."""
    failing: CountedShards
    """The same of the others."""
    batched: Batched
    """The most that final reports have ever said."""
    records: RecordCounts
    usage: Usage
    reused: Reused
    batches: int
    batched_records: int
    records_per_second: float

    def all_counted(self, shards: int) -> bool:
        """Whether every one of so many shards has had its last word."""
        return len(_indexes(self.counted, self.failing)) >= shards > 0


def take_in(counted: CountedShards, reports: Iterable[ShardReport]) -> CountedShards:
    """Add the reports of shards that are committed and were not counted before."""
    indexes = set(parse_ranges(counted.indexes))
    for report in reports:
        if not report.committed or report.shard in indexes:
            continue
        indexes.add(report.shard)
        counted = CountedShards(
            succeeded=counted.succeeded + report.records.succeeded,
            failed=counted.failed + report.records.failed,
            batches=counted.batches + report.batches,
            batched_records=counted.batched_records + report.batched_records,
            reprocessed=counted.reprocessed + report.reprocessed,
            usage=counted.usage + report.usage,
            reused=counted.reused + report.reused,
        )
    return counted.model_copy(update={"indexes": format_ranges(indexes)})


def tally(status: InferenceBatchStatus, reports: tuple[ShardReport, ...], total: int) -> Tally:
    """Sum up the reports of a batch of `total` records.

    A running shard whose pod is between two lives has no report for a while. What it had reported is still on disk, so the
    larger of the last known and the present sum is the truer one; both are lower bounds that a later look can only raise.
    """
    counted, failing = _taken_in(status, reports)
    final = _indexes(counted, failing)
    live = [r for r in reports if r.shard not in final]
    succeeded = counted.succeeded + failing.succeeded + sum(r.records.succeeded for r in live)
    failed = counted.failed + failing.failed + sum(r.records.failed for r in live)
    before = status.records
    if before.succeeded + before.failed > succeeded + failed:
        succeeded, failed = before.succeeded, before.failed
    return Tally(
        counted=counted,
        failing=failing,
        batched=_most(status.batched, counted, failing),
        records=RecordCounts(
            total=total, succeeded=succeeded, failed=failed, pending=max(0, total - succeeded - failed)
        ),
        usage=_at_least(status.usage, sum((r.usage for r in live), counted.usage + failing.usage)),
        reused=status.reused.at_least(sum((r.reused for r in live), counted.reused + failing.reused)),
        batches=counted.batches + failing.batches + sum(r.batches for r in live),
        batched_records=counted.batched_records + failing.batched_records + sum(r.batched_records for r in live),
        records_per_second=sum(float(r.records_per_second) for r in live),
    )


def from_finalize(report: FinalizeReport, counts: Tally) -> Tally:
    """The sums that `finalize` read from the commits themselves: the last word on the whole batch."""
    return replace(
        counts,
        records=report.records,
        usage=report.usage,
        reused=report.reused,
        batches=report.batches,
        batched_records=report.batched_records,
        records_per_second=0.0,
    )


def _taken_in(status: InferenceBatchStatus, reports: tuple[ShardReport, ...]) -> tuple[CountedShards, CountedShards]:
    """What was counted, and the final reports that were not: shards in which no record has failed, and the others."""
    counted, failing = status.counted_shards, status.failing_shards
    known = _indexes(counted, failing)
    new = [report for report in reports if report.shard not in known]
    return (
        take_in(counted, (report for report in new if not report.records.failed)),
        take_in(failing, (report for report in new if report.records.failed)),
    )


def _indexes(*counted: CountedShards) -> frozenset[int]:
    return frozenset[int]().union(*(parse_ranges(shards.indexes) for shards in counted))


def _most(before: Batched, *counted: CountedShards) -> Batched:
    """What a shard has in its retry includes what it had before, so the sums come back to where they were, and go on from there."""
    return Batched(
        batches=max(before.batches, sum(shards.batches for shards in counted)),
        records=max(before.records, sum(shards.batched_records for shards in counted)),
        reprocessed=max(before.reprocessed, sum(shards.reprocessed for shards in counted)),
    )


def _at_least(before: Usage, now: Usage) -> Usage:
    return Usage(
        prompt_tokens=max(before.prompt_tokens, now.prompt_tokens),
        completion_tokens=max(before.completion_tokens, now.completion_tokens),
        gpu_seconds=max(before.gpu_seconds, now.gpu_seconds),
    )
