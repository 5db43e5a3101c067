"""A file of a batch's output that is written while something else is read."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import BinaryIO, Self

from headrace_worker.failures import output_failures
from headrace_worker.stores.base import Store


class OutputFile:
    """Used in a `with` block. The file is there once the block has ended well, and only if it was opened or written to."""

    def __init__(self, store: Store, uri: str) -> None:
        self.store, self.uri = store, uri
        self._stack = ExitStack()
        self._stream: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with output_failures():
            self._stack.__exit__(kind, error, trace)

    def open(self) -> BinaryIO:
        """Begin it, unless that is done. Raises `JobFailed` when there is no room for it."""
        if self._stream is None:
            with output_failures():
                self._stream = self._stack.enter_context(self.store.writer(self.uri))
        return self._stream

    def write(self, data: bytes) -> None:
        """Add to it. Raises `JobFailed` when there is no room for it."""
        stream = self.open()
        with output_failures():
            stream.write(data)
