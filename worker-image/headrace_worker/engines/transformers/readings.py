"""Fetching and decoding in threads, while the model works on what is there already.

The threads die with the process: one that waits for a slow server keeps nobody from ending.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from torch import Tensor

from headrace_worker.media.errors import MediaError

THREADS = 8
"""So many files are fetched at once."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A file that has been read, or could not be."""

    whose: Any
    """What `begin` was told."""
    found: Tensor | MediaError | Exception


class Readings:
    """Files on their way."""

    def __init__(self, read: Callable[[str], Tensor], threads: int = THREADS) -> None:
        """`read` makes of a URL what the model takes; it raises `MediaError` and is called by several threads at once."""
        self.running = 0
        """Files that have not come back."""
        self._read, self._threads = read, threads
        self._wanted: SimpleQueue[tuple[Any, str] | None] = SimpleQueue()
        self._came: SimpleQueue[Reading] = SimpleQueue()
        self._started = False

    def begin(self, whose: Any, url: str) -> None:
        """Have a file read."""
        if not self._started:
            self._started = True
            for _ in range(self._threads):
                Thread(target=self._work, daemon=True).start()
        self.running += 1
        self._wanted.put((whose, url))

    def come(self, wait_seconds: float) -> list[Reading]:
        """The files that have been read meanwhile; waits for the first one, but no longer than that.

        Raises what `read` has raised, unless it is a `MediaError`.
        """
        found: list[Reading] = []
        while self.running:
            try:
                found.append(self._came.get(timeout=0 if found else wait_seconds))
            except Empty:
                break
            self.running -= 1
        return found

    def close(self) -> None:
        """Let the threads end once they have done what they are at."""
        for _ in range(self._threads if self._started else 0):
            self._wanted.put(None)

    def _work(self) -> None:
        while (wanted := self._wanted.get()) is not None:
            whose, url = wanted
            self._came.put(Reading(whose, self._result(url)))

    def _result(self, url: str) -> Tensor | MediaError | Exception:
        try:
            return self._read(url)
        except Exception as error:  # noqa: BLE001 - raised again by whoever takes it
            return error
