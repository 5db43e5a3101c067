"""Time, as those see it who wait for requests and for batches."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Time, in milliseconds."""

    def now(self) -> int:
        """Since the epoch."""

    async def rest(self, milliseconds: int) -> None:
        """Wait."""


class WallClock:
    """The clock of this machine."""

    def now(self) -> int:
        """What it says."""
        return time.time_ns() // 1_000_000

    async def rest(self, milliseconds: int) -> None:
        """Sleep."""
        await asyncio.sleep(milliseconds / 1000)
