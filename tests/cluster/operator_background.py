"""An event loop in a thread of its own, so that plain tests can drive helpers that must answer while a test waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 120.0


class Background:
    """The loop and its thread. As a context manager it is there inside the block and gone after it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="background", daemon=True)

    def __enter__(self) -> Background:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE_SECONDS)
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, T], seconds: float = PATIENCE_SECONDS) -> T:
        """Do some work there, and wait for what it gives."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(seconds)

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin some work there; cancel the future to end it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
