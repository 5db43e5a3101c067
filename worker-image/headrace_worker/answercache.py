"""Answers that outlive their batch: a folder with a file for each, named after what was asked."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import orjson

from headrace.api.base import JsonObject
from headrace_worker.stores import join, open_store
from headrace_worker.stores.base import NotFound

_AT_ONCE = 32
_MOST_WAITING = 1024
"""Answers that wait to be written; whoever puts one more waits, too."""


class AnswerCache:
    """The cache at a URI. Any number of workers may use it at once: whoever writes an answer last wins, and they mean the same."""

    def __init__(self, uri: str) -> None:
        self._uri, self._store = uri, open_store(uri)
        self._pool = ThreadPoolExecutor(_AT_ONCE, "answers")
        self._written: list[Future[None]] = []

    def find(self, keys: Iterable[str]) -> dict[str, JsonObject]:
        """The answers to those questions that were asked before. Raises what the store does."""
        wanted = list(keys)
        found = zip(wanted, self._pool.map(self._read, wanted), strict=True)
        return {key: body for key, body in found if body is not None}

    def put(self, key: str, body: bytes) -> None:
        """Keep an answer; it is written a little later. Raises what the store has raised for an earlier one."""
        if len(self._written) >= _MOST_WAITING:
            self._wait()
        self._written.append(self._pool.submit(self._store.put, self._name(key), body))

    def close(self) -> None:
        """Write what is left. Raises what the store does."""
        try:
            self._wait()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def _wait(self) -> None:
        written, self._written = self._written, []
        for one in written:
            one.result()

    def _read(self, key: str) -> JsonObject | None:
        try:
            body = orjson.loads(self._store.read(self._name(key)))
        except (NotFound, orjson.JSONDecodeError):  # what somebody has damaged is as good as absent: it is written anew
            return None
        return body if isinstance(body, dict) else None

    def _name(self, key: str) -> str:
        return join(self._uri, key[:2], f"{key}.json")
