"""Files that are whole or not there, and locks that die with their holder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.shells.local.files import Busy, holder_of, locked, take_lock, write_atomically


def test_write_atomically_makes_the_folder(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b.json", b"1")
    assert (tmp_path / "a" / "b.json").read_bytes() == b"1"


def test_write_atomically_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path], "nothing of the new file is left"


def test_locked_keeps_others_out_and_says_who_it_is(tmp_path: Path) -> None:
    with locked(tmp_path / "x.lock"):
        with pytest.raises(Busy, match=f"held by process {os.getpid()}"), locked(tmp_path / "x.lock", 0):
            pass
        holder = holder_of(tmp_path / "x.lock")
        assert holder is not None
        assert holder.pid == os.getpid()
    assert holder_of(tmp_path / "x.lock") is None
    with locked(tmp_path / "x.lock", 0):
        pass


def test_holder_of_a_lock_that_nobody_ever_had(tmp_path: Path) -> None:
    assert holder_of(tmp_path / "never") is None


def test_take_lock_is_held_by_a_process_that_inherits_it(tmp_path: Path) -> None:
    path = tmp_path / "alive"
    descriptor = take_lock(path)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(descriptor,))
    os.close(descriptor)
    assert holder_of(path) is not None
    process.communicate(b"\n")
    assert holder_of(path) is None


def test_take_lock_refuses_one_that_is_taken(tmp_path: Path) -> None:
    descriptor = take_lock(tmp_path / "alive")
    with pytest.raises(Busy, match="held by another process"):
        take_lock(tmp_path / "alive")
    os.close(descriptor)
