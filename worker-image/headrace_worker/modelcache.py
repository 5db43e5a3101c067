"""Weights in an object store: fetched once into a local folder, whoever asks first and how many ask at once.

The small files (configuration, tokeniser) come first, because preparing records needs no weights, and a pod that only reads the
input must not wait for them. Each file appears whole or not at all. One process fetches; the others wait for its lock, which the
system takes back should it die.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from headrace_worker.cachefolder import cache_folder
from headrace_worker.errors import JobFailed
from headrace_worker.stores import open_store, relative_name
from headrace_worker.stores.base import NoSpace, Store, StoredObject, StoreError
from headrace_worker.stores.oserrors import running_out

_FILES_AT_ONCE = 4
_COPY_BYTES = 8 * 1024 * 1024
_PART = ".part-"
_OTHER_FORMS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".ot", ".tflite", ".gguf")
"""The same weights once more, in forms that are not read where there are better ones."""


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model in an object store, and the folder that it is fetched into."""

    uri: str
    folder: Path
    small: tuple[StoredObject, ...]
    """Configuration and tokeniser; of a GGUF file, which has all in one, that file."""
    weights: tuple[StoredObject, ...]

    def fetch_small(self) -> Path:
        """Fetch what is needed to prepare records; returns where the model is: the folder, or its one GGUF file."""
        self._fetch(self.small)
        if len(self.small) == 1 and self.small[0].uri.endswith(".gguf"):
            return self._path(self.small[0])
        return self.folder

    def fetch_weights(self) -> None:
        """Fetch the rest."""
        self._fetch(self.weights)

    def _fetch(self, objects: Sequence[StoredObject]) -> None:
        with _model_failures(self.uri), _locked(self.folder):
            for left in self.folder.rglob(f"{_PART}*"):  # by a process that was killed
                shutil.rmtree(left)
            missing = [found for found in objects if not self._path(found).exists()]
            with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
                for _ in pool.map(lambda found: _fetch_one(open_store(self.uri), found, self._path(found)), missing):
                    pass

    def _path(self, found: StoredObject) -> Path:
        return self.folder / relative_name(self.uri, found.uri)


def find_remote(uri: str) -> RemoteModel:
    """What there is of a model at the URI of a folder or of a GGUF file. Raises `JobFailed` (ModelNotFound), `Unreachable`."""
    with _model_failures(uri):
        objects = list(open_store(uri).list(uri))
    small, weights = _sorted_out(objects, uri)
    content = "\n".join(f"{found.uri} {found.size} {found.version}" for found in objects)
    name = re.sub(r"[^\w.-]", "-", uri.rstrip("/").rpartition("/")[2])
    folder = cache_folder("models") / f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    return RemoteModel(uri, folder, small, weights)


def _sorted_out(objects: Sequence[StoredObject], uri: str) -> tuple[tuple[StoredObject, ...], tuple[StoredObject, ...]]:
    """The small files and the weights; what is not needed is left out."""
    ggufs = tuple(found for found in objects if found.uri.endswith(".gguf"))
    if any(relative_name(uri, found.uri) == "config.json" for found in objects):
        safe = tuple(found for found in objects if found.uri.endswith(".safetensors"))
        weights = safe or tuple(found for found in objects if found.uri.endswith(".bin"))
        small = tuple(found for found in objects if not found.uri.endswith((".safetensors", *_OTHER_FORMS)))
        return small, weights
    if len(ggufs) == 1:
        return ggufs, ()
    if ggufs:
        names = ", ".join(relative_name(uri, found.uri) for found in ggufs)
        raise JobFailed("ModelNotFound", f"model.source.uri: {uri} holds several models, name one of them: {names}")
    raise JobFailed("ModelNotFound", f"model.source.uri: {uri} holds neither a config.json nor a .gguf file")


def _fetch_one(store: Store, found: StoredObject, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=_PART) as scratch:
        part = Path(scratch, path.name)
        with running_out(path.as_uri()), store.open(found.uri) as source, part.open("wb") as target:
            shutil.copyfileobj(source, target, _COPY_BYTES)
        part.replace(path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Only one process at a time may be in the block of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _model_failures(uri: str) -> Iterator[None]:
    try:
        yield
    except NoSpace as error:
        message = f"there is no room to fetch the model {uri}: make room, or let XDG_CACHE_HOME name a larger place"
        raise JobFailed("ModelNotUsable", message) from error
    except StoreError as error:
        raise JobFailed("ModelNotFound", f"model.source.uri: {error}") from error
