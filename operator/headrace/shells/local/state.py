"""Objects as files below one folder, `.headrace/` by default; every write is whole or did not happen.

```
batches/<namespace>/<name>/object.json    metadata and spec, written by whoever changes them
                           status.json    written by the one process that runs the batch
                           jobs/ configmaps/ pods/ files/
configmaps/<namespace>/<name>.json        ConfigMaps of the user
output/<namespace>/<name>/                the default output of a batch
locks/<namespace>/<name>.run              held while a process runs the batch; .edit while one changes its spec
trash/                                    what was deleted, until it is gone
```
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from headrace.api.base import InvalidSpec, JsonObject
from headrace.api.fanoutjob import FanOutJob
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import OurObject, OurStatus
from headrace.core.edits import not_there
from headrace.shells.local.files import Busy, holder_of, locked, write_atomically
from headrace.shells.manifests import ConfigMap

ChildKind = Literal["jobs", "configmaps"]
_EDIT_PATIENCE_SECONDS = 10.0


class StateError(Exception):
    """The state folder cannot be used for what was asked."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason, self.message = reason, message
        super().__init__(message)


class BatchFolder:
    """One InferenceBatch or FanOutJob with its children. On this machine they share their names."""

    def __init__(self, path: Path, namespace: str, name: str) -> None:
        self.path, self.namespace, self.name = path, namespace, name

    @property
    def exists(self) -> bool:
        """Whether there is such a batch."""
        return (self.path / "object.json").exists()

    @property
    def pods(self) -> Path:
        """Where its pods are."""
        return self.path / "pods"

    @property
    def files(self) -> Path:
        """Where its ConfigMaps appear as files."""
        return self.path / "files"

    def load_batch(self) -> InferenceBatch:
        """The same, where it must be a batch."""
        found = self.load()
        if not isinstance(found, InferenceBatch):
            raise StateError("WrongKind", f"{self.name} is a {found.kind}, not an InferenceBatch")
        return found

    def load(self) -> OurObject:
        """The object as it is now. Raises `StateError` when there is none, or when its files are damaged."""
        data = self._read(self.path / "object.json")
        if data is None:
            raise StateError("NotFound", not_there(self.namespace, self.name))
        status = self._read(self.path / "status.json")
        try:
            model = FanOutJob if data.get("kind") == "FanOutJob" else InferenceBatch
            return model.parse({**data, "status": status or {}})
        except InvalidSpec as error:
            raise self._damaged("object.json", str(error)) from error

    def write_object(self, obj: OurObject) -> None:
        """Write metadata and spec."""
        data = {key: value for key, value in obj.to_object().items() if key != "status"}
        _write_json(self.path / "object.json", data)

    def write_status(self, status: OurStatus) -> None:
        """Write the status; for the process that runs the object alone."""
        _write_json(self.path / "status.json", status.to_object())

    def children(self, kind: ChildKind) -> list[JsonObject]:
        """The child objects of that kind, by name."""
        paths = sorted((self.path / kind).glob("*.json"))
        return [data for path in paths if (data := self._read(path)) is not None]

    def write_child(self, kind: ChildKind, child: Mapping[str, Any]) -> None:
        """Create or replace a child."""
        _write_json(self.path / kind / f"{child['metadata']['name']}.json", child)

    def delete_child(self, kind: ChildKind, name: str) -> None:
        """Remove a child; one that is not there is no error."""
        (self.path / kind / f"{name}.json").unlink(missing_ok=True)

    def _read(self, path: Path) -> JsonObject | None:
        try:
            data = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise self._damaged(path.name, str(error)) from error
        if not isinstance(data, dict):
            raise self._damaged(path.name, "it is no object")
        return data

    def _damaged(self, file: str, why: str) -> StateError:
        hint = f"`headrace delete {self.name}` removes the batch"
        return StateError("StateDamaged", f"{self.path / file} cannot be read: {why}; {hint}")


class StateDir:
    """All objects of this machine that share a state folder."""

    def __init__(self, root: Path) -> None:
        """Use that folder. Raises `StateError` when its name would mean something else in a URI."""
        self.root = root.absolute()
        if any(char in str(self.root) for char in "%*?"):
            raise StateError("BadStateDir", f"the state folder {self.root} must not have %, * or ? in its path")

    @property
    def default_output(self) -> str:
        """URI below which a batch without `spec.output.uri` gets its folder."""
        return f"file://{quote(str(self.root / 'output'))}/"

    def output_folder(self, namespace: str, name: str) -> Path:
        """The folder of the batch below `default_output`."""
        return self.root / "output" / namespace / name

    def batch(self, namespace: str, name: str) -> BatchFolder:
        """The batch of that name, whether it exists or not."""
        return BatchFolder(self.root / "batches" / namespace / name, namespace, name)

    def batches(self, namespace: str | None = None) -> list[BatchFolder]:
        """All batches of a namespace, or of all of them, by name."""
        found = sorted((self.root / "batches").glob(f"{namespace or '*'}/*/object.json"))
        return [self.batch(path.parent.parent.name, path.parent.name) for path in found]

    def config_map(self, namespace: str, name: str) -> ConfigMap | None:
        """A ConfigMap of the user; None when there is none."""
        path = self._config_map_path(namespace, name)
        return ConfigMap.parse(json.loads(path.read_bytes())) if path.exists() else None

    def write_config_map(self, config_map: ConfigMap) -> None:
        """Create or replace a ConfigMap of the user."""
        path = self._config_map_path(config_map.metadata.namespace, config_map.metadata.name)
        _write_json(path, config_map.to_object())

    @contextmanager
    def running(self, folder: BatchFolder) -> Iterator[None]:
        """Be the one process that runs the batch. Raises `StateError` naming the other one."""
        try:
            with locked(self._lock(folder, "run")):
                yield
        except Busy as busy:
            message = f"{folder.name} is already {busy}: wait for it, or stop that process with Ctrl-C"
            raise StateError("AlreadyRunning", message) from busy

    def runner(self, folder: BatchFolder) -> Busy | None:
        """The process that runs the batch now; None when there is none."""
        return holder_of(self._lock(folder, "run"))

    @contextmanager
    def editing(self, folder: BatchFolder) -> Iterator[None]:
        """Be the one process that changes the metadata and spec of the batch."""
        with locked(self._lock(folder, "edit"), _EDIT_PATIENCE_SECONDS):
            yield

    def discard(self, path: Path) -> None:
        """Delete a folder in one step, as far as anybody can see; a later call finishes what a crash has left."""
        trash = self.root / "trash"
        trash.mkdir(parents=True, exist_ok=True)
        if path.exists():
            path.rename(trash / uuid.uuid4().hex)
        for rubbish in trash.iterdir():
            shutil.rmtree(rubbish, ignore_errors=True)  # another process may be at it too

    def _config_map_path(self, namespace: str, name: str) -> Path:
        return self.root / "configmaps" / namespace / f"{name}.json"

    def _lock(self, folder: BatchFolder, purpose: str) -> Path:
        return self.root / "locks" / folder.namespace / f"{folder.name}.{purpose}"


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(data, indent=1, ensure_ascii=False).encode() + b"\n")
