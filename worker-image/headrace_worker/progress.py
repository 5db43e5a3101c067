"""What can be said about a worker while it runs."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from headrace.api.worker import Report

SPEED_WINDOW_SECONDS = 30.0


@dataclass(slots=True)
class Live:
    """The newest report: shown at `/progress`, and the last word when the worker ends before its time."""

    report: Report


class Speed:
    """Records a second over the last half minute. Pure."""

    def __init__(self, now: float, finished: int) -> None:
        self._samples = deque([(now, finished)])

    def measure(self, now: float, finished: int) -> float:
        """Take a sample (`finished` records so far); the speed since the oldest sample in the window."""
        self._samples.append((now, finished))
        while len(self._samples) > 2 and now - self._samples[1][0] >= SPEED_WINDOW_SECONDS:
            self._samples.popleft()
        before, count = self._samples[0]
        return (finished - count) / (now - before) if now > before else 0.0
