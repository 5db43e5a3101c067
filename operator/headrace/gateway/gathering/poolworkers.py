"""The port between a warm pool and its workers, wherever these are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

from headrace.api.worker import Failure


class End(NamedTuple):
    """How a worker has ended, or why nobody can tell it anything any more."""

    exit_code: int
    failure: Failure | None = None
    """What it has said about it."""


class NotStarted(Exception):
    """No worker can be started now. Another try may do."""

    def __init__(self, reason: str, message: str) -> None:
        self.failure = Failure(reason=reason, message=message)
        super().__init__(message)


class Worker(Protocol):
    """A worker that was started. It says when it is ready, and whenever it is free."""

    name: str
    since: int
    """When it was started, in milliseconds since the epoch."""

    @property
    def obstacle(self) -> Failure | None:
        """What keeps it from being ready, as far as can be seen."""

    def tell(self, line: bytes) -> None:
        """Tell it a micro-batch. One that has just died hears nothing, and says so by its end."""

    def lines(self) -> AsyncIterator[bytes]:
        """What it says, until it has ended."""

    async def end(self) -> End:
        """Wait for its end."""

    def stop(self) -> None:
        """Tell it to stop: it says what is done, and ends."""

    def kill(self) -> None:
        """End it now, unless it was left."""

    def leave(self) -> None:
        """Whoever tells it of requests ends: a worker that can be found again goes on for the next one, any other is told to stop."""


class Workers(Protocol):
    """Where workers of one pool are started."""

    async def begin(self) -> None:
        """Look what there is; nothing else is asked for before that is done. May be done again."""

    def found(self) -> Sequence[Worker]:
        """Workers of the pool that are there and that nobody here knows of: somebody else has started them. Each is named once."""

    async def start(self) -> Worker:
        """Start one. Raises `NotStarted`, or `OSError`, when that is not possible now."""

    async def close(self) -> None:
        """Look no more."""
