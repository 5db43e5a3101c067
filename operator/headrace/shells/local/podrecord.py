"""What is written down about a pod, and what its words weigh."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from headrace.api.base import ApiModel
from headrace.api.worker import ExitCode, Report, Role, ShardReport
from headrace.core.job_controller import PodPhase, PodState
from headrace.core.observed import WorkerReport
from headrace.shells.local.state import StateError


class PodRecord(ApiModel):
    """The life of one pod, as its folder keeps it."""

    name: str
    job_name: str
    job_uid: str
    role: Role
    index: int
    grace_seconds: int
    started_at: datetime
    pid: int | None = None
    stopped_at: datetime | None = None
    """When it was told to stop."""
    finished_at: datetime | None = None
    exit_code: int | None = None
    """None for one that runs or was lost."""

    @property
    def running(self) -> bool:
        """Whether it has not been seen to end."""
        return self.finished_at is None

    def state(self) -> PodState:
        """As the Job controller sees it; one that was told to stop, or lost, ended for no fault of its own."""
        ended = PodPhase.SUCCEEDED if self.exit_code == 0 else PodPhase.FAILED
        return PodState(
            name=self.name,
            index=self.index,
            phase=PodPhase.RUNNING if self.running else ended,
            terminating=self.running and self.stopped_at is not None,
            exit_code=self.exit_code,
            disrupted=not self.running and (self.stopped_at is not None or self.exit_code is None),
            finished_at=self.finished_at,
        )


def weighed(record: PodRecord, last_words: Report | None, live: Report | None) -> WorkerReport | None:
    """What a pod has said, with the weight that it has.

    Last words are final once the exit code is known. Whatever else there is only tells how far a shard is: what it says to be
    its end, the pod has not been seen to reach.
    """
    if last_words is not None and record.exit_code is not None:
        return WorkerReport(record.role, last_words, final=True, exit_code=record.exit_code)
    said = last_words or live
    if not isinstance(said, ShardReport):
        return None
    return WorkerReport(record.role, said.model_copy(update={"committed": False}), final=False)


def last_failure(folder: Path) -> Path | None:
    """The log of the pod in that folder that has failed last of itself, not for being told to stop; None when none has."""
    failed = [record for record in load_records(folder) if record.exit_code not in _HARMLESS and not record.stopped_at]
    last = max(failed, key=lambda record: record.finished_at or record.started_at, default=None)
    return folder / last.name / "log" if last is not None else None


_HARMLESS = (None, ExitCode.DONE, ExitCode.DRAINED)


def load_records(folder: Path) -> list[PodRecord]:
    """The records in a folder. A pod folder without one was made just before a crash, and nothing was ever started in it."""
    return [_read(path) for path in folder.glob("*/pod.json")]


def _read(path: Path) -> PodRecord:
    try:
        return PodRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise StateError("StateDamaged", f"{path} is not the record of a pod: {error.errors()[0]['msg']}") from error
