"""Turns on a core: short ones for who must answer at once, and for nobody who need not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.shells.local import turns

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has them")


def length(task: str) -> int:
    """How long the turns of a task are, in nanoseconds, as the kernel says."""
    lines = Path(f"/proc/{task}/sched").read_text().splitlines()
    return next(int(line.split(":")[1]) for line in lines if line.startswith("se.slice"))


def in_a_thread(work: Callable[[], None]) -> None:
    """Nothing of it stays with the process of the tests. Raises what it raises."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is raised below
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


@pytest.fixture
def usual() -> int:
    """How long turns are here without more."""
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    if release < (6, 12) or not Path("/proc/self/sched").exists():
        pytest.skip("this kernel knows no turns of one's own, or does not show them")
    return length("thread-self")


def test_who_answers_takes_short_turns_with_all_it_starts_until_that_is_taken_back(usual: int) -> None:
    def work() -> None:
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        turns.take_short_turns()
        assert length("thread-self") == turns.SHORT_NANOSECONDS
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
            assert length(str(child.pid)) == turns.SHORT_NANOSECONDS
            turns.take_usual_turns(child.pid)
            assert length(str(child.pid)) == usual
            assert os.getpriority(os.PRIO_PROCESS, child.pid) == nice, (
                "a turn's length takes nothing of anybody's share"
            )
        turns.take_usual_turns(child.pid)  # it has gone: nothing is said of it

    in_a_thread(work)
    assert length("thread-self") == usual


def test_turns_are_as_they_were_where_the_kernel_knows_none(usual: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    in_a_thread(turns.take_short_turns)
    monkeypatch.setattr(turns, "_SET_ATTRIBUTES", {"riscv64": 100_000})  # no such call

    def work() -> None:
        turns.take_short_turns()
        assert length("thread-self") == usual

    in_a_thread(work)
