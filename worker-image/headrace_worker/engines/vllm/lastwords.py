"""What vLLM's processes have said last: when one of them ends, all that this process is told is to look at what stands above in the log."""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

_KEPT_LINES = 1000
_PIECE_BYTES = 64 * 1024
_MARK = b"\0headrace has heard everything up to here\0"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_RAISED = re.compile(r"^(?:\([^)]*\) )*(?:ERROR [^\]]*\] )?(?P<said>(?:\w+\.)*\w*(?:Error|Exception): .+)$")
"""The last line of a traceback, with what vLLM's log puts before it."""
_OF_OTHERS = (
    "Engine core initialization failed",
    "WorkerProc initialization failed",
    "EngineCore encountered an issue",
    "Worker failed with error",
    "cancelled",
)
"""What one process says of the end of another: no cause."""
_PATIENCE_SECONDS = 10.0
"""For whoever reads the log to take what was said."""
_ENOUGH = 500
"""Characters of a cause that are repeated."""


class LastWords:
    """Standard error of the processes that are started in `heard`, on its way to where it would go anyway."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._all_heard = threading.Event()
        self._write = -1

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Processes that are started in the block are heard for as long as they live."""
        read, self._write = os.pipe()
        usual = os.dup(2)
        os.dup2(self._write, 2)
        threading.Thread(target=self._listen, args=(read, os.dup(usual)), daemon=True).start()
        try:
            yield
        finally:
            os.dup2(usual, 2)
            os.close(usual)

    def cause(self) -> str | None:
        """The error that was told of last, if one was."""
        self._all_heard.clear()
        os.write(self._write, _MARK + b"\n")
        self._all_heard.wait(_PATIENCE_SECONDS)
        return cause_in(self._lines)

    def close(self) -> None:
        """Listen no longer than there is somebody."""
        os.close(self._write)

    def _listen(self, read: int, usual: int) -> None:
        rest = b""
        while piece := os.read(read, _PIECE_BYTES):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                self._hear(line, usual)
        if rest:
            self._hear(rest, usual)
        os.close(read)
        os.close(usual)

    def _hear(self, line: bytes, usual: int) -> None:
        before, mark, _ = line.partition(_MARK)
        if mark:
            self._all_heard.set()
        if before or not mark:
            self._lines.append(before.decode(errors="replace"))
            with suppress(OSError):  # a log that cannot be written must keep nobody from working
                os.write(usual, before + b"\n")


def cause_in(lines: Iterable[str]) -> str | None:
    """The last error in a log that is none about the end of another process."""
    found = None
    for line in lines:
        raised = _RAISED.match(_COLOUR.sub("", line).rstrip())
        if raised is not None and not any(words in raised["said"] for words in _OF_OTHERS):
            found = raised["said"][:_ENOUGH]
    return found
