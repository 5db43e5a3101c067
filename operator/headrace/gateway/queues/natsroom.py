"""How much of a disk a NATS server of our own may fill, and when it is worth a new start because there has come to be more.

A server reads once, as it starts, how much it may keep, and left alone takes a share of what is free then: less at each start, the more
it has kept. Full, it takes nothing more until it is started again.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

_TAKEN, _TIGHT, _GROWN = 50, 80, 110
"""In percent: of the disk, for what was deleted lies there as long again until its file is written anew, and a server that finds no room
for that answers nobody; of what it may keep; and what makes a new start worth it."""


def room(folder: Path) -> int:
    """Bytes that a server may keep in a folder: half of what it has and of what is free."""
    return (used(folder) + shutil.disk_usage(folder).free) * _TAKEN // 100


def used(folder: Path) -> int:
    """Bytes of all files below a folder, which may come and go meanwhile."""
    found = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                found += Path(where, name).stat().st_size
    return found


def has_grown(folder: Path, limit: int) -> bool:
    """Whether a server that may keep no more than `limit` is about full, and could keep more by now."""
    return used(folder) * 100 > limit * _TIGHT and room(folder) * 100 > limit * _GROWN
