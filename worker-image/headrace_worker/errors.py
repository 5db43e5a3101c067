"""How a worker gives up: one exception that carries the exit code and what to tell the user."""

from __future__ import annotations

from headrace.api.worker import ExitCode, Failure

CRASHED = 1
"""Exit code of a worker that met something nobody has thought of, or that may pass; another is started, a limited number of times."""


class WorkerError(Exception):
    """The worker cannot go on. `main` turns it into the exit code and the termination message."""

    def __init__(self, exit_code: int, reason: str, message: str) -> None:
        self.exit_code = exit_code
        self.failure = Failure(reason=reason, message=message)
        super().__init__(f"{reason}: {message}")


class JobFailed(WorkerError):
    """Nothing can be done on any shard: bad configuration, no model, no room for the output."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(ExitCode.JOB_FAILED, reason, message)


class ShardFailed(WorkerError):
    """A shard cannot be done; the others can."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(ExitCode.SHARD_FAILED, reason, message)


class Drained(WorkerError):
    """Told to stop, or replaced by a newer attempt; everything that is done is on disk."""

    def __init__(self, message: str) -> None:
        super().__init__(ExitCode.DRAINED, "Drained", message)


class EngineDied(WorkerError):
    """What the engine runs in has ended; another worker may do better, so it counts as a crash."""

    def __init__(self, message: str) -> None:
        super().__init__(CRASHED, "EngineDied", message)
