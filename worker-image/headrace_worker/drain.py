"""Being told to stop: SIGTERM, SIGINT, or the end of standard input where nobody else would notice that the shell has died.

A handler only notes the request and wakes whoever waits; the loop asks. Where nothing can be half done (loading a model, waiting
for the whole input to be read) the request is raised at once, inside `interrupting`.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from headrace_worker.errors import Drained


class Drain:
    """Whether this worker has been told to stop."""

    def __init__(self) -> None:
        self.requested = False
        self._interrupting = False
        # A pipe and no threading.Event: a handler runs inside whatever the main thread does, and an Event that it was just
        # waiting on would deadlock.
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)

    def install(self) -> None:
        """Listen to SIGTERM and SIGINT. Call it in the main thread."""
        signal.signal(signal.SIGTERM, lambda *_: self.request())
        signal.signal(signal.SIGINT, lambda *_: self.request())

    def request(self) -> None:
        """Ask to stop. Raises `Drained` inside `interrupting`."""
        if not self.requested:
            self.requested = True
            os.write(self._wake_write, b".")
        if self._interrupting:
            raise Drained("told to stop")

    def wait(self, seconds: float, *others: int) -> bool:
        """Wait, but not on after a request, or when one of these descriptors can be read; returns whether there has been a request."""
        return self._wake_read in select.select([self._wake_read, *others], [], [], max(0.0, seconds))[0]

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """While the block runs, a request raises `Drained` there and then."""
        self._interrupting = True
        try:
            if self.requested:
                raise Drained("told to stop")
            yield
        finally:
            self._interrupting = False


def drain_on_end_of_input() -> None:
    """Send SIGTERM to this process when its standard input ends."""

    def watch() -> None:
        while os.read(0, 65536):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="end-of-input", daemon=True).start()
