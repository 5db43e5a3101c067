"""Starts workers quickly: everything is imported once, and each worker is a fork.

An order is a line of JSON, `{"role": …, "env": {…}, "log": path}`; the answers are two lines, the process id and the exit code.
"""

from __future__ import annotations

import json
import os
import sys

from headrace_worker.main import main


def play(role: str, env: dict[str, str], log: str) -> int:
    """Be a worker, and nothing else any more."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(env)
    return main([role])


for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os._exit(play(order["role"], order["env"], order["log"]))
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
