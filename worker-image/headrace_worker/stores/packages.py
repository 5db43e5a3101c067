"""Data inside installed Python packages, to be read only.

`package://MODULE/PATH` is a file or a folder of a package, found without importing it. `package://MODULE:NAME` is an attribute
that maps names to texts, such as `package://pydoc_data.topics:topics`; each entry is one object, its name escaped as one step
of the path.
"""

from __future__ import annotations

import importlib
import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import BinaryIO, NoReturn
from urllib.parse import quote, unquote

from headrace_worker.stores.base import Log, NotFound, NotWritable, StoredObject, StoreError
from headrace_worker.stores.local import LocalStore, file_uri
from headrace_worker.stores.patterns import is_glob, matcher

_URI = re.compile(r"package://(?P<module>[A-Za-z_][\w.]*)(?P<attribute>:[A-Za-z_]\w*)?(?P<rest>/.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Address:
    """A URI taken apart; `root` is the part before the rest, which is empty or begins with a slash."""

    root: str
    module: str
    attribute: str | None
    rest: str


class PackageStore:
    """A `Store` of what Python packages bring along."""

    def __init__(self) -> None:
        self._files = LocalStore()

    def list(self, pattern: str) -> Iterator[StoredObject]:
        """The file, everything below the folder, the entries of the mapping, or what the glob matches; sorted by name."""
        address = _parse(pattern)
        if address.attribute is None:
            for found in self._files.list(_file_uri(address)):
                if "/__pycache__/" not in found.uri:
                    yield StoredObject(_package_uri(address, found.uri), found.size)
        else:
            texts = _texts(address)
            for name in _wanted(texts, pattern, address):
                uri = pattern if name == unquote(address.rest[1:]) else f"{address.root}/{quote(name, safe='')}"
                yield StoredObject(uri, len(_encoded(texts, name, uri)))

    def scan(self, pattern: str) -> Iterator[StoredObject]:
        """The same: packages are small."""
        return self.list(pattern)

    def open(self, uri: str, start: int = 0) -> AbstractContextManager[BinaryIO]:
        """Read a file or an entry from byte `start`. Raises `NotFound` naming the module or the attribute."""
        address = _parse(uri)
        if address.attribute is None:
            return self._files.open(_file_uri(address), start)
        return io.BytesIO(_encoded(_texts(address), unquote(address.rest[1:]), uri)[start:])

    def read(self, uri: str) -> bytes:
        """The whole of a file or an entry."""
        with self.open(uri) as stream:
            return stream.read()

    def exists(self, uri: str) -> bool:
        """Whether there is such a file or entry."""
        return any(found.uri == uri for found in self.list(uri))

    def put(self, uri: str, data: bytes, *, if_absent: bool = False) -> None:  # noqa: ARG002 - the interface's
        """Not possible: raises `NotWritable`, as everything below does."""
        _refuse(uri)

    def writer(self, uri: str) -> AbstractContextManager[BinaryIO]:
        """Not possible."""
        _refuse(uri)

    def append(self, uri: str) -> AbstractContextManager[Log]:
        """Not possible."""
        _refuse(uri)

    def read_log(self, uri: str) -> AbstractContextManager[BinaryIO]:
        """Read a file: nothing here has ever grown."""
        return self.open(uri)

    def delete(self, *uris: str) -> None:
        """Not possible."""
        _refuse(" ".join(uris))


def _refuse(uri: str) -> NoReturn:
    raise NotWritable(f"{uri} is in a Python package, which is only read: output.uri must be elsewhere")


def _parse(uri: str) -> _Address:
    found = _URI.fullmatch(uri)
    if found is None:
        raise StoreError(
            f"{uri} is not the URI of package data: it must be package://MODULE/PATH or package://MODULE:NAME"
        )
    module, attribute, rest = found["module"], found["attribute"], found["rest"] or ""
    root = f"package://{module}{attribute or ''}"
    return _Address(root, module, attribute[1:] if attribute else None, rest)


def _file_uri(address: _Address) -> str:
    return file_uri(_folder(address)) + address.rest


def _package_uri(address: _Address, file: str) -> str:
    """The URI of a file of a package, in the words of the package."""
    return address.root + file.removeprefix(file_uri(_folder(address)))


def _folder(address: _Address) -> str:
    """Where a package lies. Its top is found without importing it, and its subpackages are its subfolders."""
    top, *subpackages = address.module.split(".")
    spec = find_spec(top) if top != "__main__" else None
    if spec is None:
        raise NotFound(f"{address.root}: there is no Python module {top} in this worker: check the name, or install it")
    places = [os.path.join(place, *subpackages) for place in spec.submodule_search_locations or ()]
    folder = next(filter(os.path.isdir, places), None)
    if folder is None:
        raise NotFound(f"{address.root}: {address.module} is no Python package with files of its own")
    return folder


def _texts(address: _Address) -> Mapping[str, str]:
    assert address.attribute is not None
    try:
        module = importlib.import_module(address.module)
    except ImportError as error:
        raise NotFound(f"{address.root}: the Python module {address.module} cannot be imported: {error}") from error
    texts = getattr(module, address.attribute, None)
    if texts is None:
        raise NotFound(f"{address.root}: the module {address.module} has no attribute {address.attribute}")
    if not isinstance(texts, Mapping) or not all(isinstance(name, str) for name in texts):
        raise StoreError(f"{address.root} is a {type(texts).__name__}: it must be a mapping of names to texts")
    return texts


def _wanted(texts: Mapping[str, str], pattern: str, address: _Address) -> list[str]:
    name = unquote(address.rest[1:])
    if name in texts:
        return [name]
    if is_glob(address.rest):
        matches = matcher(pattern)
        return sorted(filter(matches, texts))
    return [] if name else sorted(texts)


def _encoded(texts: Mapping[str, str], name: str, uri: str) -> bytes:
    text = texts.get(name)
    if text is None:
        raise NotFound(f"{uri}: the mapping has no entry {name}")
    if not isinstance(text, str):
        raise StoreError(f"{uri} is a {type(text).__name__}: it must be a text")
    return text.encode()
