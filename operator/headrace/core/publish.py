"""When a status is worth writing: a transition at once, mere progress at most every five seconds."""

from __future__ import annotations

from datetime import datetime, timedelta

from headrace.api.inferencebatch import InferenceBatchStatus
from headrace.api.kinds import OurStatus

PROGRESS_INTERVAL = timedelta(seconds=5)


def write_due(written: OurStatus, desired: OurStatus, last_write: datetime | None, now: datetime) -> timedelta | None:
    """How long to wait before writing; zero for now, None when there is nothing new to write."""
    if written == desired:
        return None
    if last_write is None or _transition(written, desired):
        return timedelta(0)
    # A clock that was set back must not hold the status back for as long.
    return min(PROGRESS_INTERVAL, max(timedelta(0), last_write + PROGRESS_INTERVAL - now))


def _transition(written: OurStatus, desired: OurStatus) -> bool:
    def essence(status: OurStatus) -> object:
        conditions = tuple((c.type, c.status, c.reason, c.observed_generation) for c in status.conditions)
        return (
            conditions,
            status.observed_generation,
            status.retries,
            _parts(status),
            status.output,
            status.validation,
        )

    return essence(written) != essence(desired)


def _parts(status: OurStatus) -> object:
    """The parts that there are and what they hold, and for branches how they stand."""
    if isinstance(status, InferenceBatchStatus):
        return status.shards.total, status.admission
    return status.branch_counts
