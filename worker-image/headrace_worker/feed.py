"""The two pipes of a worker that serves a pool: micro-batches come in on one, answers go out on the other, each a line."""

from __future__ import annotations

import os
import select
from typing import Protocol

from headrace.api.worker import MicroBatch
from headrace_worker.drain import Drain
from headrace_worker.errors import Drained

_PIECE_BYTES = 1024 * 1024


def private_output() -> int:
    """What was standard output, for answers alone; whatever a library prints goes where the log goes."""
    answers = os.dup(1)
    os.dup2(2, 1)
    return answers


class Feed(Protocol):
    """What a worker is told, and what it says."""

    def begins_anew(self) -> bool:
        """Whether who had told it of requests is gone since it was last asked, or another has come: nobody waits for those."""

    def wait(self, seconds: float, drain: Drain) -> None:
        """Wait until there is something to hear, or a request to stop."""

    def take(self, drain: Drain) -> list[MicroBatch]:
        """What has been told since it was last asked; waits for nothing."""

    def say(self, lines: bytes) -> None:
        """Say whole lines. Raises `Drained` when nobody listens any more, and nobody will."""


class PipeFeed:
    """The two pipes of whoever has started it, and of nobody else."""

    def __init__(self, told: int, said: int) -> None:
        """The descriptors of the two pipes."""
        self._told, self._said = told, said
        self._rest = b""
        self._ended = False

    def begins_anew(self) -> bool:
        """Never."""
        return False

    def wait(self, seconds: float, drain: Drain) -> None:
        """Wait until there is something to hear, or a request to stop."""
        drain.wait(seconds, self._told)

    def take(self, drain: Drain) -> list[MicroBatch]:
        """What has been told since it was last asked; waits for nothing. The end of it all is a request to stop."""
        batches: list[MicroBatch] = []
        while not self._ended and select.select([self._told], [], [], 0)[0]:
            piece = os.read(self._told, _PIECE_BYTES)
            self._ended = not piece
            *lines, self._rest = (self._rest + piece).split(b"\n")
            batches += [MicroBatch.model_validate_json(line) for line in lines if line]
        if self._ended:
            drain.request()
        return batches

    def say(self, lines: bytes) -> None:
        """Say whole lines. Raises `Drained` when nobody listens any more."""
        view = memoryview(lines)
        try:
            while view:
                view = view[os.write(self._said, view) :]
        except BrokenPipeError as error:
            raise Drained("whoever has started this worker is gone") from error
