"""Files that are either whole or not there, and locks that die with the process that holds them."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Busy(Exception):
    """Somebody else holds the lock."""

    def __init__(self, pid: int | None) -> None:
        self.pid = pid
        super().__init__(f"held by process {pid}" if pid else "held by another process")


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file in one step, durably; its folder is made when it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, patience_seconds: float = 0.3) -> Iterator[None]:
    """Hold the lock of that name. Raises `Busy` when somebody else has it, and goes on having it.

    The patience is for `holder_of`, which takes the lock for an instant.
    """
    descriptor, deadline = _open_lock(path), time.monotonic() + patience_seconds
    try:
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise Busy(_holder(descriptor))
            time.sleep(0.01)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def holder_of(path: Path) -> Busy | None:
    """Who holds the lock of that name now; None when nobody does."""
    if not path.exists():
        return None
    descriptor = _open_lock(path)
    try:
        return None if _try_lock(descriptor) else Busy(_holder(descriptor))
    finally:
        os.close(descriptor)


def take_lock(path: Path) -> int:
    """A descriptor that holds a fresh lock for as long as it is open, here or in a process that inherits it."""
    descriptor = _open_lock(path)
    if not _try_lock(descriptor):
        holder = _holder(descriptor)
        os.close(descriptor)
        raise Busy(holder)
    return descriptor


def _open_lock(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    return int(text) if text.isascii() and text.isdecimal() else None
