"""Where a container may write: an emptyDir of its pod's own, for its root file system is read-only; and shared memory."""

from __future__ import annotations

from headrace.api.base import JsonObject

NAME = "tmp"
_PATH = "/tmp"  # noqa: S108 - nobody else's: a path inside the pod
HOME: JsonObject = {"name": "HOME", "value": _PATH}
MOUNT: JsonObject = {"name": NAME, "mountPath": _PATH}
VOLUME: JsonObject = {"name": NAME, "emptyDir": {}}
SHARED_MOUNT: JsonObject = {"name": "shared-memory", "mountPath": "/dev/shm"}  # noqa: S108 - likewise
SHARED_VOLUME: JsonObject = {"name": "shared-memory", "emptyDir": {"medium": "Memory"}}
"""What a runtime gives is 64 MiB, in which the processes of several GPUs cannot talk to each other. It counts as memory of the pod."""
