"""How long this process is on a core at a time, where others want it too.

A thread that has something to do waits until whoever is on the core has had its turn, which is some milliseconds, unless its own turns
are shorter. Whoever must answer at once has many such waits one after the other: so it takes short turns. That is nothing of anybody's
share. Linux knows of it from 6.12 on; elsewhere nothing changes.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

SHORT_NANOSECONDS = 200_000
_USUAL = 0
_SET_ATTRIBUTES = {"x86_64": 314, "aarch64": 274}
"""Numbers of the system call `sched_setattr`, which Python does not have."""
_ATTRIBUTES = struct.Struct("IIQiIQQQ")
"""`struct sched_attr`: size, policy, flags, nice, priority, and what of the next is for us: the length of a turn."""


def take_short_turns() -> None:
    """From now on this thread, and each thread and process that it starts, is on a core for a short while at a time."""
    _set(0, SHORT_NANOSECONDS)


def take_usual_turns(pid: int) -> None:
    """A process that such a thread has just started need not answer at once."""
    _set(pid, _USUAL)


def _set(pid: int, nanoseconds: int) -> None:
    number = _SET_ATTRIBUTES.get(platform.machine()) if sys.platform == "linux" else None
    if number is None:
        return
    try:
        if os.sched_getscheduler(pid) != os.SCHED_OTHER:  # whoever has chosen another policy knows what it is for
            return
        nice = os.getpriority(os.PRIO_PROCESS, pid)
    except ProcessLookupError:
        return
    said = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, nanoseconds, 0, 0)
    ctypes.CDLL(None).syscall(number, pid, said, 0)  # a kernel that does not know it refuses it, and all is as it was
