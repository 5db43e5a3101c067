"""Workers as forks of a process that has torch imported already: half of what a small batch costs is to import it.

`python worker_forks.py SOCKET` listens there. Each connection is one worker: who connects says in a line of JSON what it is,
`{"words": […], "env": {…}, "log": path}`, and is told its exit code in a line when it has ended. A connection that is closed, or a
further line, tells the worker to stop, so that none outlives who has asked for it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from importlib import import_module
from typing import Any

from headrace_worker.main import main

FIRST = (
    "torch",
    "transformers",
    "PIL.Image",
    "headrace_worker.engines.transformers",
    "headrace_worker.engines.transformers.engine",
)


def play(order: dict[str, Any]) -> int:
    """Be a worker, and nothing else any more."""
    descriptor = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(order["env"])
    return main(order["words"])


def keep(connection: socket.socket) -> None:
    """See one worker through."""
    order = json.loads(connection.makefile().readline())
    pid = os.fork()
    if pid == 0:
        os._exit(play(order))
    end = os.pidfd_open(pid)
    ready, _, _ = select.select([end, connection.fileno()], [], [])
    if end not in ready:
        os.kill(pid, signal.SIGTERM)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    connection.sendall(f"{code if code >= 0 else 128 - code}\n".encode())


def serve(path: str) -> None:
    """Fork a keeper for each connection, until killed."""
    for module in FIRST:
        import_module(module)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers are nobody's concern when they have ended
    print("listening", flush=True)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            keep(connection)
            os._exit(0)
        connection.close()


if __name__ == "__main__":
    serve(sys.argv[1])
