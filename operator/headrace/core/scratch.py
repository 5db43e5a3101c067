"""The one place where a container may write: an emptyDir of its pod's own, for its root file system is read-only."""

from __future__ import annotations

from headrace.api.base import JsonObject

NAME = "tmp"
_PATH = "/tmp"  # noqa: S108 - nobody else's: a path inside the pod
HOME: JsonObject = {"name": "HOME", "value": _PATH}
MOUNT: JsonObject = {"name": NAME, "mountPath": _PATH}
VOLUME: JsonObject = {"name": NAME, "emptyDir": {}}
