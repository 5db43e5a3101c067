"""Container images from a folder on this machine: no registry, no daemon, no Dockerfile."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Image:
    """A root file system, and what a container of it runs unless its pod says otherwise."""

    reference: str
    """With a tag other than `latest`: the kubelet tries to pull that one although it is there."""
    tree: Path
    entrypoint: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = "0:0"

    def write(self, archive: Path) -> None:
        """Write the image in the form of `docker save`, which every runtime can load."""
        layer = archive.with_suffix(".layer")
        with tarfile.open(layer, "w") as packed:
            packed.add(self.tree, arcname=".")
        config = json.dumps(self._config(layer)).encode()
        manifest = json.dumps([{"Config": "config.json", "RepoTags": [self.reference], "Layers": ["layer.tar"]}])
        with tarfile.open(archive, "w") as whole:
            whole.add(layer, arcname="layer.tar")
            _add(whole, "config.json", config)
            _add(whole, "manifest.json", manifest.encode())
        layer.unlink()

    def _config(self, layer: Path) -> dict[str, Any]:
        with layer.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **self.environment}
        return {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {
                "Entrypoint": list(self.entrypoint),
                "Env": [f"{name}={value}" for name, value in environment.items()],
                "User": self.user,
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
