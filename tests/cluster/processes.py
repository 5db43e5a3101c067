"""Processes that outlive the command that started them, and are ended by nobody else.

A process is remembered by its id and its start time: an id alone may belong to a stranger by the time it is used.
"""

import contextlib
import fcntl
import functools
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .messages import ClusterError, Unavailable

_NOT_CHOSEN_BY_THE_KERNEL = range(20_000, 30_000)
"""Below what Linux gives to connections that go out, unless somebody has told it otherwise."""
_RESERVED: set[int] = set()
"""The ports that this process has been given."""
_RESERVING = threading.Lock()


@dataclass(frozen=True)
class Process:
    pid: int
    started: int
    """Clock ticks between the machine's boot and the process's start."""


def require_linux() -> None:
    if not sys.platform.startswith("linux"):
        raise Unavailable(
            f"the control plane runs on Linux, this is {sys.platform}: "
            "start a cluster yourself (kind, minikube) and set HEADRACE_TEST_KUBECONFIG"
        )


def spawn(argv: Sequence[str | Path], log: Path, environment: dict[str, str] | None = None) -> Process:
    """Start a process in its own session, so that no terminal and no parent takes it along when it goes."""
    command = [str(word) for word in argv]
    output = (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    pid = os.posix_spawnp(
        command[0],
        command,
        {**os.environ, **(environment or {})},
        file_actions=[nothing, output, (os.POSIX_SPAWN_DUP2, 1, 2)],
        setsid=True,
        setsigdef=[signal.SIGPIPE],  # Python ignores it, and a child would inherit that
    )
    return identify(pid)


def identify(pid: int) -> Process:
    return Process(pid, _start_time(pid) or 0)  # zero matches no process: this one is gone already


def is_alive(process: Process) -> bool:
    # A child that has ended stays in the table until its parent asks for it, and the parent may be us.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    return _start_time(process.pid) == process.started


def stop(processes: Iterable[Process], grace_seconds: float = 10) -> None:
    """End all of them at once: ask first, and insist when the grace is over."""
    asked = list(processes)
    _send(asked, signal.SIGTERM)
    kill(_wait_for_end(asked, grace_seconds))


def kill(processes: Iterable[Process]) -> None:
    """End all of them with no warning, as a crash would."""
    doomed = list(processes)
    _send(doomed, signal.SIGKILL)
    if remaining := _wait_for_end(doomed, seconds=30):
        raise ClusterError(f"the kernel does not end {remaining}: look at their state with `ps`, then try again")


def _send(processes: list[Process], number: signal.Signals) -> None:
    for process in filter(is_alive, processes):
        with contextlib.suppress(ProcessLookupError):  # it ended this very moment
            os.kill(process.pid, number)


def _wait_for_end(processes: list[Process], seconds: float) -> list[Process]:
    deadline = time.monotonic() + seconds
    while (remaining := [process for process in processes if is_alive(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return remaining


def _start_time(pid: int) -> int | None:
    """Give the start time of a running process, None for one that is gone or only waits to be collected."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold spaces and parentheses itself; the numbered fields begin after it.
    fields = stat[stat.rindex(")") + 2 :].split()
    state, threads, start_time = fields[0], int(fields[17]), int(fields[19])
    # After SIGKILL the first thread may be gone while others still hold the process's ports and locks.
    return None if state in "ZX" and threads <= 1 else start_time


def tail(log: Path, lines: int = 25) -> str:
    """Give the last lines of a log, for a message about the process that wrote it."""
    if not log.exists():
        return f"(nothing was written to {log})"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) or f"({log} is empty)"


def free_ports(count: int) -> list[int]:
    """Ports that nobody has, and that no other test run on this machine is given before this process ends.

    None that the kernel would choose: those it also gives to connections that go out, and many do before somebody listens here.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(_NOT_CHOSEN_BY_THE_KERNEL, len(_NOT_CHOSEN_BY_THE_KERNEL)):
        if len(found) == count:
            return found
        if _is_free(port) and _reserve(port):
            found.append(port)
    raise OSError(f"there are no {count} free ports on this machine")


def _is_free(port: int) -> bool:
    with contextlib.suppress(OSError), socket.socket() as trial:
        trial.bind(("127.0.0.1", port))
        return True
    return False


def _reserve(port: int) -> bool:
    """Take a port before somebody listens there: a byte of a file, which the kernel locks for this process until it ends."""
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False  # another process has it
    with _RESERVING:  # the kernel would give it to this process twice
        if port in _RESERVED:
            return False
        _RESERVED.add(port)
        return True


@functools.cache
def _reservations() -> int:
    """The file, open for as long as this process lives: to close it once would give back everything."""
    path = Path(tempfile.gettempdir()) / f"headrace-test-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
