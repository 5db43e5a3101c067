"""Counting records: final reports are taken in once, live reports go on top, and progress never runs backwards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from headrace.api.inferencebatch import CountedShards, InferenceBatchStatus, RecordCounts, Usage
from headrace.api.worker import FinalizeReport, ShardReport
from headrace.core.ranges import format_ranges, parse_ranges


@dataclass(frozen=True, slots=True)
class Tally:
    """What all reports say together."""

    counted: CountedShards
    """Sums of the final reports alone."""
    records: RecordCounts
    usage: Usage
    batches: int
    batched_records: int
    records_per_second: float

    def all_counted(self, shards: int) -> bool:
        """Whether every one of so many shards has had its last word."""
        return len(parse_ranges(self.counted.indexes)) >= shards > 0


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
        )
    return counted.model_copy(update={"indexes": format_ranges(indexes)})


def tally(status: InferenceBatchStatus, reports: tuple[ShardReport, ...], total: int) -> Tally:
    """Sum up the reports of a batch of `total` records.

    A running shard whose pod is between two lives has no report for a while. What it had reported is still on disk, so the
    larger of the last known and the present sum is the truer one; both are lower bounds that a later look can only raise.
    """
    counted = take_in(status.counted_shards, reports)
    final = parse_ranges(counted.indexes)
    live = [r for r in reports if r.shard not in final]
    succeeded = counted.succeeded + sum(r.records.succeeded for r in live)
    failed = counted.failed + sum(r.records.failed for r in live)
    before = status.records
    if before.succeeded + before.failed > succeeded + failed:
        succeeded, failed = before.succeeded, before.failed
    return Tally(
        counted=counted,
        records=RecordCounts(
            total=total, succeeded=succeeded, failed=failed, pending=max(0, total - succeeded - failed)
        ),
        usage=_at_least(status.usage, sum((r.usage for r in live), counted.usage)),
        batches=counted.batches + sum(r.batches for r in live),
        batched_records=counted.batched_records + sum(r.batched_records for r in live),
        records_per_second=sum(float(r.records_per_second) for r in live),
    )


def from_finalize(report: FinalizeReport, counted: CountedShards) -> Tally:
    """The sums that `finalize` read from the commits themselves: the last word on the whole batch."""
    return Tally(counted, report.records, report.usage, report.batches, report.batched_records, 0.0)


def _at_least(before: Usage, now: Usage) -> Usage:
    return Usage(
        prompt_tokens=max(before.prompt_tokens, now.prompt_tokens),
        completion_tokens=max(before.completion_tokens, now.completion_tokens),
        gpu_seconds=max(before.gpu_seconds, now.gpu_seconds),
    )
