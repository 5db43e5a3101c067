"""The contract between the operator and its workers: what a worker is told, how it ends, and what it reports.

A worker is told everything by environment variables and reports by its exit code and its termination message (durable in the
pod's status, at most 4,096 bytes). While it runs, `GET /progress` on its metrics port answers with the same report.
"""

from __future__ import annotations

from headrace.api.worker.config import (
    BatchIdentity,
    Env,
    FanOutConfig,
    JoinBranch,
    Role,
    WorkerConfig,
    parts_input,
    shard_at,
    stage_input,
    stage_uri,
)
from headrace.api.worker.reports import (
    TERMINATION_MESSAGE_BYTES,
    Compared,
    EvaluationReport,
    ExitCode,
    Failure,
    FinalizeReport,
    JoinReport,
    ListReport,
    PlanReport,
    Report,
    SelectReport,
    ServeReport,
    ShardReport,
    parse_report,
    termination_message,
)
from headrace.api.worker.serving import (
    FREE,
    Listening,
    MicroBatch,
    Opening,
    Partial,
    ToldRequest,
    parse_partial,
    partial_line,
)
from headrace.api.worker.shards import ManifestHeader, Segment, Shard

__all__ = [
    "FREE",
    "TERMINATION_MESSAGE_BYTES",
    "BatchIdentity",
    "Compared",
    "Env",
    "EvaluationReport",
    "ExitCode",
    "Failure",
    "FanOutConfig",
    "FinalizeReport",
    "JoinBranch",
    "JoinReport",
    "ListReport",
    "Listening",
    "ManifestHeader",
    "MicroBatch",
    "Opening",
    "Partial",
    "PlanReport",
    "Report",
    "Role",
    "Segment",
    "SelectReport",
    "ServeReport",
    "Shard",
    "ShardReport",
    "ToldRequest",
    "WorkerConfig",
    "parse_partial",
    "parse_report",
    "partial_line",
    "parts_input",
    "shard_at",
    "stage_input",
    "stage_uri",
    "termination_message",
]
