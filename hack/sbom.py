"""What our images are made of: a CycloneDX document for each, read from the image itself and not from what was asked for.

`python hack/sbom.py --images build/images --output-dir build/sbom` reads the archives that `make images` leaves (the form of
`docker save`): Debian's packages and Python's distributions, with version and licence. Nothing but the standard library is needed.
"""

from __future__ import annotations

import argparse
import json
import tarfile
from collections.abc import Iterator
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import quote

DPKG_STATUS = "var/lib/dpkg/status"
DIST_INFO = ".dist-info/METADATA"


class Component(NamedTuple):
    """One package in an image."""

    ecosystem: str
    """`pypi` or `deb`."""
    name: str
    version: str
    licence: str

    @property
    def purl(self) -> str:
        """Its package URL."""
        namespace = "debian/" if self.ecosystem == "deb" else ""
        return f"pkg:{self.ecosystem}/{namespace}{quote(self.name)}@{quote(self.version)}"


def components(archive: Path) -> list[Component]:
    """The packages in an image, sorted. A later layer's word about a file counts, as in a container."""
    with tarfile.open(archive) as image:
        manifest = json.loads(_read(image, "manifest.json"))[0]
        files: dict[str, bytes] = {}
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=image.extractfile(layer)) as inside:
                _overlay(files, inside)
    found = {component for path, data in files.items() for component in _packages(path, data.decode(errors="replace"))}
    return sorted(found)


def document(image: str, found: list[Component]) -> dict[str, Any]:
    """The CycloneDX document."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": image, "bom-ref": image}},
        "components": [
            {
                "type": "library",
                "bom-ref": one.purl,
                "name": one.name,
                "version": one.version,
                "purl": one.purl,
                **({"licenses": [{"license": {"name": one.licence}}]} if one.licence else {}),
            }
            for one in found
        ],
    }


def _overlay(files: dict[str, bytes], layer: tarfile.TarFile) -> None:
    for member in layer:
        path = member.name.removeprefix("./").lstrip("/")
        folder, _, name = path.rpartition("/")
        if name == ".wh..wh..opq":
            _forget(files, folder)
        elif name.startswith(".wh."):
            _forget(files, f"{folder}/{name.removeprefix('.wh.')}")
        elif member.isfile() and (path == DPKG_STATUS or path.endswith(DIST_INFO)):
            file = layer.extractfile(member)
            files[path] = file.read() if file is not None else b""


def _forget(files: dict[str, bytes], path: str) -> None:
    for known in [it for it in files if it == path or it.startswith(f"{path}/")]:
        del files[known]


def _packages(path: str, text: str) -> Iterator[Component]:
    parser = HeaderParser()
    if path == DPKG_STATUS:
        for paragraph in filter(None, text.split("\n\n")):
            about = parser.parsestr(paragraph)
            if about.get("Status", "").endswith(" installed"):
                yield Component("deb", about["Package"], about["Version"], "")
    else:
        about = parser.parsestr(text)
        yield Component("pypi", about["Name"].lower(), about["Version"], _licence(about))


def _licence(about: Message[str, str]) -> str:
    said = about.get("License-Expression") or about.get("License") or ""
    classifiers = [
        line.rpartition(" :: ")[2] for line in about.get_all("Classifier", []) if line.startswith("License ::")
    ]
    line = said.strip().splitlines()[0] if said.strip() else ", ".join(classifiers)
    return line[:120]


def _read(image: tarfile.TarFile, name: str) -> bytes:
    file: IO[bytes] | None = image.extractfile(name)
    assert file is not None
    return file.read()


def main() -> None:
    """Write a document for each archive."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--images", type=Path, default=Path("build/images"))
    parser.add_argument("--output-dir", type=Path, default=Path("build/sbom"))
    chosen = parser.parse_args()
    chosen.output_dir.mkdir(parents=True, exist_ok=True)
    for archive in sorted(chosen.images.glob("*.tar")):
        found = components(archive)
        path = chosen.output_dir / f"{archive.stem}.cdx.json"
        path.write_text(json.dumps(document(archive.stem, found), indent=1) + "\n")
        print(f"{path}: {len(found)} packages")


if __name__ == "__main__":
    main()
