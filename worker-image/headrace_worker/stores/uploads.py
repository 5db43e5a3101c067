"""Large objects written as a stream: in parts, each sent while the next is made, and visible only once all are there.

What fits into one part is one plain request, and has cost nothing before the end. Of a longer one the parts go up in a thread that
pulls them; when the writer fails, so does the pull, and the client gives the parts back to the store.
"""

from __future__ import annotations

import io
import queue
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import cast

PART_BYTES = 8 * 1024 * 1024
_PARTS_WAITING = 2
_NAP_SECONDS = 0.1

Part = bytes | None
"""None ends an upload."""


class _Given(Exception):
    """Tells the upload that its writer has given up."""


class Upload(io.RawIOBase):
    """What is written to it goes up by `send`, which takes either all bytes or an iterator of parts. End it by `finish` or `abort`."""

    def __init__(self, send: Callable[[bytes | Iterator[bytes]], object]) -> None:
        self._send = send
        self._buffer = bytearray()
        self._parts: queue.Queue[Part | _Given] = queue.Queue(_PARTS_WAITING)
        self._pool = ThreadPoolExecutor(1, "upload")
        self._upload: Future[object] | None = None

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: object) -> int:
        """Take bytes; waits while too many parts are on their way. Raises what the upload has raised."""
        piece = cast("bytes", data)
        self._buffer += piece
        while len(self._buffer) > PART_BYTES:
            self._hand_over(bytes(self._buffer[:PART_BYTES]))
            del self._buffer[:PART_BYTES]
        return len(piece)

    def finish(self) -> None:
        """Let the object appear."""
        with self._pool:
            if self._upload is None:
                self._send(bytes(self._buffer))
                return
            self._hand_over(bytes(self._buffer))
            self._hand_over(None)
            self._upload.result()

    def abort(self) -> None:
        """Leave nothing behind. The upload ends with an error that nobody looks at: the writer's own is on its way."""
        with self._pool:
            upload = self._upload
            while upload is not None and not upload.done() and not self._takes(_Given()):
                pass

    def _hand_over(self, part: Part | _Given) -> None:
        if self._upload is None:
            self._upload = self._pool.submit(self._send, self._pull())
        while not self._takes(part):
            if self._upload.done():
                self._upload.result()
                return

    def _takes(self, part: Part | _Given) -> bool:
        """Whether there was room for it, now or in a moment."""
        try:
            self._parts.put(part, timeout=_NAP_SECONDS)
        except queue.Full:
            return False
        return True

    def _pull(self) -> Iterator[bytes]:
        while (part := self._parts.get()) is not None:
            if isinstance(part, _Given):
                raise part
            yield part
