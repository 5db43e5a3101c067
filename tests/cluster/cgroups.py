"""A control group of the node's own, in both versions of them that machines have.

It keeps two kubelets on one machine from cleaning up each other's pods, and it lists every process that the node
ever started, containers included, so that none is left behind.
"""

import contextlib
import errno
import os
import signal
import time
from pathlib import Path

from .messages import ClusterError, Unavailable

_MOUNT = Path("/sys/fs/cgroup")
_LEAF = "runtime"
"""Where the node's own processes are; pods get groups beside it."""


class ControlGroup:
    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def roots(self) -> list[Path]:
        """One in version 2; in version 1 one a controller, and often version 2 beside them for its bookkeeping."""
        if _is_version_2():
            return [_MOUNT / self.name]
        folders = [folder for folder in sorted(_MOUNT.iterdir()) if not folder.is_symlink()]
        return [folder / self.name for folder in folders if (folder / "cgroup.procs").exists()]

    @property
    def joins(self) -> list[Path]:
        """The files that take a process's id to make it, and all that it starts, members."""
        return [root / _LEAF / "cgroup.procs" for root in self.roots]

    def create(self) -> None:
        try:
            if _is_version_2():
                _hand_down_controllers()
            for root in self.roots:
                for group in (root, root / _LEAF):
                    group.mkdir(exist_ok=True)
                    _inherit_processors(group)
        except OSError as error:
            raise Unavailable(
                f"a node needs control groups ({error}): use a machine or a privileged container"
            ) from error

    def remove(self) -> None:
        """End every member, then the group itself."""
        deadline = time.monotonic() + 20
        while groups := self._groups():
            if time.monotonic() > deadline:
                raise ClusterError(f"processes stay in {groups[-1]}: look at them with `ps`, then run `down` again")
            for pid in {pid for group in groups for pid in _members(group)}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for group in groups:
                with contextlib.suppress(OSError):  # refused while it has members: the next round tries again
                    group.rmdir()
            time.sleep(0.05)

    def _groups(self) -> list[Path]:
        """Give all that exist, each after those inside it."""
        return [Path(group) for root in self.roots for group, _, _ in os.walk(root, topdown=False)]


def _members(group: Path) -> list[int]:
    try:
        return [int(line) for line in (group / "cgroup.procs").read_text().split()]
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENODEV}:  # the runtime removed the group this very moment
            return []
        raise


def _is_version_2() -> bool:
    return (_MOUNT / "cgroup.controllers").exists()


def _hand_down_controllers() -> None:
    """Version 2 gives a group only those controllers that its parent hands down, and the kubelet insists on these."""
    controllers = "+cpu +cpuset +memory +pids"
    (_MOUNT / "cgroup.subtree_control").write_text(controllers)


def _inherit_processors(group: Path) -> None:
    """Version 1 makes cpuset groups with no processor, and no process may join such a group."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        file, parent = group / name, group.parent / name
        # Version 2 leaves the file empty to say "as the parent", and its top has no such file at all.
        if file.exists() and parent.exists() and not file.read_text().strip():
            file.write_text(parent.read_text())
