"""Memory that a burst of objects has needed goes back to the machine: the C library keeps it unless it is asked."""

from __future__ import annotations

import asyncio
import ctypes
from typing import NoReturn

INTERVAL_SECONDS = 15.0


async def tidy() -> NoReturn:
    """Ask now and then, until cancelled. It takes a millisecond or so; C libraries other than glibc have no such call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while True:
        await asyncio.sleep(INTERVAL_SECONDS)
        if trim is not None:
            trim(0)
