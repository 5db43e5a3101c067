"""What reading the results of a batch says beside the records themselves: the last line on standard error of `headrace_worker results`."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import ValidationError

from headrace.api.base import ApiModel, Count
from headrace.api.worker import Failure


class Wanted(StrEnum):
    """Which records."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ALL = "all"


class ResultsReport(ApiModel):
    """What was read."""

    kind: Literal["results"] = "results"
    shards: Count = 0
    """Shards that are committed: what there is to read."""
    records: Count = 0
    """Records that were written to standard output."""
    failure: Failure | None = None
    """Why not all could be read."""


def parse_results_report(stderr: bytes) -> ResultsReport | None:
    """The report in what was written to standard error; None when there is none: the reader died before it could say a word."""
    lines = stderr.rstrip().splitlines()
    try:
        return ResultsReport.model_validate_json(lines[-1]) if lines else None
    except ValidationError:
        return None
