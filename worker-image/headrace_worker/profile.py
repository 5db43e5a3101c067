"""What a worker does, moment by moment, as a file that trace viewers read (`chrome://tracing`, ui.perfetto.dev).

It is on where the environment names a folder, and costs a line for each step. The file is whole after every line but for its last
bracket, which viewers do without: so that of a worker that was killed can be read, too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from headrace.api.worker import Env
from headrace_worker.config import bad_config

_MICROSECONDS = 1_000_000


class Profile:
    """The trace of one worker, while it is written."""

    def __init__(self, file: BinaryIO, shard: int) -> None:
        self._file, self._pid = file, os.getpid()
        file.write(b"[\n")
        self._write({"name": "process_name", "ph": "M", "args": {"name": f"shard {shard}"}})

    def span(self, name: str, began: float, ended: float) -> None:
        """Something was done from one moment to another, in seconds of one clock."""
        self._write({"name": name, "ph": "X", "ts": began * _MICROSECONDS, "dur": (ended - began) * _MICROSECONDS})

    def count(self, now: float, **amounts: int) -> None:
        """How many there are of something, from now on."""
        for name, amount in amounts.items():
            self._write({"name": name, "ph": "C", "ts": now * _MICROSECONDS, "args": {name: amount}})

    def close(self) -> None:
        """There is no more."""
        self._file.write(b"{}]\n")
        self._file.close()

    def _write(self, event: Mapping[str, Any]) -> None:
        self._file.write(orjson.dumps({**event, "pid": self._pid, "tid": 0}) + b",\n")


def open_profile(env: Mapping[str, str], shard: int) -> Profile | None:
    """The trace that the environment asks for; None when it asks for none. Raises `JobFailed` when it cannot be written."""
    folder = env.get(Env.PROFILE)
    if not folder:
        return None
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        path = Path(folder) / f"shard-{shard:05}.{os.getpid()}.trace.json"
        return Profile(path.open("wb", buffering=0), shard)
    except OSError as error:
        raise bad_config(
            f"{Env.PROFILE} must name a folder that can be written, not {folder}: {error.strerror}"
        ) from error
