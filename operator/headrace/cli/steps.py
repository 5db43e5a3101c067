"""An asynchronous stream, gone through step by step by code that is not asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Generic, TypeVar

T = TypeVar("T")


class Steps(Generic[T]):
    """A stream whose steps are taken one by one on a loop that runs only meanwhile; closed in good order also in the middle of one.

    Ctrl-C ends a loop wherever it is, and not only in the task that it runs: then a step is left pending, and its stream cannot be closed.
    """

    def __init__(self, stream: AsyncGenerator[T]) -> None:
        self._stream = stream
        self._step: asyncio.Task[T] | None = None

    async def next(self) -> T:
        """The next of the stream. Raises `StopAsyncIteration` at its end, and whatever the stream raises."""
        self._step = asyncio.ensure_future(anext(self._stream))
        return await self._step

    async def close(self) -> None:
        """Take back the step that was begun, and close the stream."""
        if self._step is not None and not self._step.done():
            self._step.cancel()
            await asyncio.wait([self._step])
        await self._stream.aclose()
