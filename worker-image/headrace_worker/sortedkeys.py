"""A sorted set that stays quick when it is large: short sorted lists in a row, so that no insertion moves many keys. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Generic, TypeVar

_Key = TypeVar("_Key", int, bytes)

_MOST_IN_A_RUN = 2048


class SortedKeys(Generic[_Key]):
    """Keys in ascending order, each once."""

    def __init__(self) -> None:
        self._runs: list[list[_Key]] = []
        self._lasts: list[_Key] = []
        """Last key of each run."""

    def add(self, key: _Key) -> None:
        """Add a key that is not there yet."""
        if not self._runs:
            self._runs.append([])
            self._lasts.append(key)
        at = min(bisect_left(self._lasts, key), len(self._runs) - 1)
        run = self._runs[at]
        insort(run, key)
        self._lasts[at] = run[-1]
        if len(run) > _MOST_IN_A_RUN:
            half = len(run) // 2
            self._runs[at : at + 1] = [run[:half], run[half:]]
            self._lasts.insert(at, run[half - 1])

    def remove(self, key: _Key) -> None:
        """Remove a key that is there."""
        at = bisect_left(self._lasts, key)
        run = self._runs[at]
        del run[bisect_left(run, key)]
        if run:
            self._lasts[at] = run[-1]
        else:
            del self._runs[at], self._lasts[at]

    def last(self) -> _Key:
        """The greatest key."""
        return self._lasts[-1]

    def around(self, key: _Key) -> Iterator[_Key]:
        """All keys, from a key that is there downwards, and then upwards from the one above it."""
        at = bisect_left(self._lasts, key)
        split = bisect_right(self._runs[at], key)
        yield from reversed(self._runs[at][:split])
        for run in reversed(self._runs[:at]):
            yield from reversed(run)
        yield from self._runs[at][split:]
        for run in self._runs[at + 1 :]:
            yield from run
