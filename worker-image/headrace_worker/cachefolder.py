"""Where a worker keeps what it would otherwise fetch or make again: `$XDG_CACHE_HOME/headrace/`, else `~/.cache/headrace/`.

Where neither can be written, a temporary folder takes its place that goes when the process ends.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

from headrace_worker.errors import JobFailed


def cache_folder(kind: str) -> Path:
    """The folder for one kind of things. Raises `JobFailed` when there is nowhere to write."""
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        root = Path(home, "headrace", kind)
        root.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=root).close()
    except (OSError, RuntimeError):  # not writable; or a user without a home
        return temporary_folder(kind)
    return root


@cache
def temporary_folder(kind: str) -> Path:
    """The folder that takes its place in this process."""
    try:
        root = tempfile.mkdtemp(prefix=f"headrace-{kind}-")
    except OSError as error:
        raise JobFailed(
            "ModelNotUsable",
            "the files of a model are put into a local folder before use, and there is nowhere to write: "
            "set XDG_CACHE_HOME to a folder that can be written, or mount one at /tmp",
        ) from error
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return Path(root)
