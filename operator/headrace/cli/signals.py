"""An ear for Ctrl-C and its like while batches are worked on."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

from headrace.cli.text import remark

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Counts the requests to stop while its block lasts, and says at the first one what that does."""

    def __init__(self, said: str = "") -> None:
        self.requested = 0
        self._said, self._last = said, signal.SIGINT
        self._before: dict[signal.Signals, Any] = {}

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal has ended."""
        return 128 + self._last

    def __enter__(self) -> Signals:
        self._before = {number: signal.signal(number, self._note) for number in STOPPING}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.requested += 1
        self._last = signal.Signals(number)
        if self.requested == 1 and self._said:
            remark(self._said)
