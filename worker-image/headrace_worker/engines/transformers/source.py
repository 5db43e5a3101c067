"""Where a model's files are: from `model.source` to a folder, a GGUF file, or an id of the Hugging Face hub.

Weights in a `package`, a `path` or on the hub are found here; those at a `uri` are fetched into a folder first. A claim or an image
volume is a folder once the operator has mounted it.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import getproxies

from huggingface_hub import constants, try_to_load_from_cache

from headrace.api.model import Model, ModelSource, PackageSource
from headrace_worker.errors import JobFailed
from headrace_worker.modelcache import RemoteModel, find_remote

SUPPORTED = "model.source must be package, path, uri or huggingFace for the engine transformers in this worker"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What transformers is given to load from."""

    location: str
    """A folder, or an id of the hub."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    gguf: Path | None = None
    """The one GGUF file, where the weights are in one; `location` is then its folder."""
    remote: RemoteModel | None = None
    """Where the weights are still to be fetched from."""

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments for every `from_pretrained`. The hub's token is read from `HF_TOKEN` by the hub's own client."""
        return {} if self.revision is None else {"revision": self.revision}


def find(model: Model) -> ModelFiles:
    """The files of a model. Raises `JobFailed` (ModelNotFound, ModelSourceNotSupported), `Unreachable`.

    Of weights in an object store, what `prepare` needs is fetched.
    """
    source = model.source
    if source is None:
        return _by_name(model.name)
    if source.path is not None:
        return _local(Path(source.path).expanduser(), "model.source.path")
    if source.package is not None:
        return _local(_package_path(source.package), "model.source.package")
    if source.hugging_face is not None:
        return ModelFiles(source.hugging_face.id, source.hugging_face.revision)
    if source.uri is not None:
        remote = find_remote(source.uri)
        return replace(_local(remote.fetch_small(), "model.source.uri"), remote=remote)
    raise JobFailed("ModelSourceNotSupported", f"{SUPPORTED}, not {_kind(source)}")


def bare_weights(model: Model, suffixes: Collection[str]) -> Path | None:
    """The one file that `model.source` names, where that is a file of bare weights; None where it is a model with a configuration.

    Raises `JobFailed` when the file is not there.
    """
    source = model.source
    if source is None or (source.path is None and source.package is None):
        return None
    named = source.path or (source.package.path if source.package is not None else "")
    if Path(named).suffix not in suffixes:
        return None
    path = Path(source.path).expanduser() if source.path is not None else _package_path(_package(source))
    if not path.is_file():
        raise JobFailed("ModelNotFound", f"model.source: there is no file {path} in this worker")
    return path


def _package(source: ModelSource) -> PackageSource:
    assert source.package is not None
    return source.package


def _kind(source: ModelSource) -> str:
    return next(name for name in source.to_object())


def _by_name(name: str) -> ModelFiles:
    path = Path(name).expanduser()
    if path.exists():
        return _local(path, "model.name")
    cached = isinstance(_cached_config(name), str)
    if cached or (_is_hub_id(name) and _hub_is_reachable()):
        return ModelFiles(name)
    raise JobFailed(
        "ModelNotFound",
        f"model.name {name} is no folder here, and the Hugging Face hub cannot be asked for it: "
        "set model.source to say where the weights are",
    )


def _cached_config(name: str) -> Any:
    return try_to_load_from_cache(name, "config.json") if _is_hub_id(name) else None


def _is_hub_id(name: str) -> bool:
    parts = name.split("/")
    return len(parts) <= 2 and all(part and not part.startswith(".") and part.isprintable() for part in parts)


def _hub_is_reachable() -> bool:
    """Whether to try the hub: its client would repeat a hopeless request for a minute, which is long for a mistyped name."""
    if constants.HF_HUB_OFFLINE:
        return False
    if getproxies():
        return True
    try:
        socket.getaddrinfo(urlparse(constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def _package_path(source: PackageSource) -> Path:
    try:
        spec = find_spec(source.module)
    except ImportError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise JobFailed(
            "ModelNotFound", f"model.source.package: the Python package {source.module} is not installed in this worker"
        )
    return Path(next(iter(spec.submodule_search_locations)), source.path)


def _local(path: Path, field: str) -> ModelFiles:
    if not path.exists():
        raise JobFailed("ModelNotFound", f"{field}: there is no {path} in this worker")
    if path.is_file():
        return _gguf(path, field)
    found = sorted(path.glob("*.gguf"))
    if (path / "config.json").exists():
        return ModelFiles(str(path))
    if len(found) == 1:
        return _gguf(found[0], field)
    if found:
        names = ", ".join(file.name for file in found)
        raise JobFailed("ModelNotFound", f"{field}: {path} holds several models, name one of them: {names}")
    raise JobFailed("ModelNotFound", f"{field}: {path} holds neither a config.json nor a .gguf file")


def _gguf(path: Path, field: str) -> ModelFiles:
    if path.suffix != ".gguf":
        raise JobFailed("ModelNotFound", f"{field} must be a folder or a .gguf file, not {path}")
    return ModelFiles(str(path.parent), gguf=path)
