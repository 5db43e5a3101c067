"""An event loop in which no time is lost: it passes only when nobody has anything to do, and then at once to the next timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import pytest

Play: TypeAlias = Callable[[Coroutine[Any, Any, Any]], Any]


class JumpingLoop(asyncio.SelectorEventLoop):
    """Its clock starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        coming = [timer.when() for timer in timers if not timer.cancelled()]
        if coming and not self._ready:  # type: ignore[attr-defined]
            self._now = max(self._now, min(coming))
        super()._run_once()  # type: ignore[misc]


@pytest.fixture
def play() -> Play:
    """Run a coroutine to its end, in no time."""

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            return runner.run(work)

    return run
