"""Ends a cluster whose owner died: a test run that was killed has no chance to do it itself."""

import os
import sys
import time
from pathlib import Path

from .processes import Process, identify, is_alive

_PACKAGE = Path(__file__).parent


def command(folder: Path) -> list[str]:
    """Give the command that waits for this process to end and takes the cluster down then."""
    owner = identify(os.getpid())
    # By the folder's own name, because an installed package may be called "tests" as well.
    python = ["env", f"--chdir={_PACKAGE.parent}", sys.executable, "-m", _PACKAGE.name]
    return [*python, "--dir", str(folder), "guard", str(owner.pid), str(owner.started)]


def wait_for_end(owner: Process) -> None:
    while is_alive(owner):
        time.sleep(1)
