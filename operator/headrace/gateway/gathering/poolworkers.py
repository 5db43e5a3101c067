"""The port between a warm pool and its workers, wherever these are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol

from headrace.api.worker import Failure


class End(NamedTuple):
    """How a worker has ended."""

    exit_code: int
    failure: Failure | None = None
    """What it has said about it."""


class Worker(Protocol):
    """A worker that was started. It says when it is ready, and whenever it is free."""

    name: str

    def tell(self, line: bytes) -> None:
        """Tell it a micro-batch. One that has just died hears nothing, and says so by its end."""

    def lines(self) -> AsyncIterator[bytes]:
        """What it says, until it has ended."""

    async def end(self) -> End:
        """Wait for its end."""

    def stop(self) -> None:
        """Tell it to stop: it says what is done, and ends."""

    def kill(self) -> None:
        """End it now."""


class Workers(Protocol):
    """Where workers of one pool are started."""

    async def start(self) -> Worker:
        """Start one. Raises `OSError` when that is not possible now."""
