"""What is used up over time: sums over a window that moves on in steps."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime

SLOTS = 24
"""Parts of a window: use moves out of it one part at a time, so a batch that a budget stops is not started again every second."""


@dataclass(slots=True)
class Window:
    """What was used within the last so many seconds."""

    seconds: int
    slots: deque[tuple[int, int]] = field(default_factory=deque)
    """Start of each part in seconds since the epoch, and what was used in it."""
    used: int = 0

    @property
    def step(self) -> int:
        """Length of a part, in seconds."""
        return max(1, self.seconds // SLOTS)

    def add(self, amount: int, now: datetime) -> None:
        """So much more was used, now."""
        start = int(now.timestamp()) // self.step * self.step
        if self.slots and self.slots[-1][0] >= start:  # a clock that was set back does not tear the order apart
            self.slots[-1] = (self.slots[-1][0], self.slots[-1][1] + amount)
        else:
            self.slots.append((start, amount))
        self.used += amount

    def forget(self, now: datetime) -> None:
        """Drop what has moved out of the window."""
        while self.slots and self.slots[0][0] + self.step + self.seconds <= now.timestamp():
            self.used -= self.slots.popleft()[1]

    def exhausted_until(self, limit: int, now: datetime) -> datetime | None:
        """When less than the limit will be in the window; None when that is so now."""
        self.forget(now)
        left = self.used
        if left < limit:
            return None
        for start, amount in self.slots:
            left -= amount
            if left < limit:
                return datetime.fromtimestamp(start + self.step + self.seconds, UTC)
        raise AssertionError("with nothing in the window less than the limit, which is at least 1, is in it")

    def text(self) -> str:
        """For a status."""
        return ",".join(f"{start}:{amount}" for start, amount in self.slots)

    @classmethod
    def of(cls, seconds: int, text: str) -> Window:
        """From a status; what is no such text counts as nothing used."""
        window = cls(seconds)
        for part in filter(None, text.split(",")):
            start, _, amount = part.partition(":")
            if start.isdecimal() and amount.isdecimal():
                window.slots.append((int(start), int(amount)))
        window.slots = deque(sorted(window.slots))
        window.used = sum(amount for _, amount in window.slots)
        return window
