"""Images of a few files, as archives in the form of `docker save`."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Entry(NamedTuple):
    """What a layer has at a path."""

    data: bytes = b""
    mode: int = 0o644
    kind: bytes = tarfile.REGTYPE


Layer = Mapping[str, bytes | Entry]


def an_image(path: Path, *layers: Layer, config: Mapping[str, Any] | None = None) -> Path:
    """An archive of these layers; `config` is what a container of it runs as."""
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = json.dumps([{"Config": "config.json", "Layers": names}]).encode()
    said = json.dumps({"config": dict(config or {})}).encode()
    parts = {"manifest.json": manifest, "config.json": said, **dict(zip(names, map(_tar, layers), strict=True))}
    archive = path / "headrace-test.tar"
    archive.write_bytes(_tar(parts))
    return archive


def _tar(files: Layer) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = content if isinstance(content, Entry) else Entry(content)
            about = tarfile.TarInfo(name)
            about.size, about.mode, about.type = len(entry.data), entry.mode, entry.kind
            archive.addfile(about, io.BytesIO(entry.data))
    return buffer.getvalue()
