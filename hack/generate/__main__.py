"""Write the generated files, or with `--check` say which of them differ from what would be written."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from cluster import binaries
from cluster.messages import Unavailable
from generate.dashboards import render_dashboards
from generate.install import install_manifest
from generate.reference import render_reference
from generate.values import values_schema
from headrace import __version__
from headrace.api.crd import render_crds
from headrace.core.httpapi.document import document
from headrace.core.httpapi.operations import OPERATIONS

ROOT = Path(__file__).parents[2]
CHART = Path("charts/headrace")
SHOWN_LINES = 20


def from_models() -> dict[Path, str]:
    """Paths and contents of what follows from the models alone."""
    crds = render_crds()
    return {
        **{Path("crds") / name: text for name, text in crds.items()},
        **{CHART / "files/crds" / name: text for name, text in crds.items()},
        CHART / "values.schema.json": values_schema(),
        Path("docs/reference.md"): render_reference(),
        Path("docs/openapi.json"): json.dumps(document(OPERATIONS, __version__), indent=1, ensure_ascii=False) + "\n",
        **{CHART / "files/dashboards" / name: text for name, text in render_dashboards().items()},
    }


def from_chart() -> dict[Path, str]:
    """Paths and contents of what Helm makes of the chart. Raises `Unavailable` where there is no Helm."""
    helm = binaries.helm(lambda said: print(said, file=sys.stderr))
    return {Path("manifests/install.yaml"): install_manifest(helm, ROOT / CHART)}


def write(files: Mapping[Path, str]) -> None:
    """Write them below the repository's root, and remove what is no longer generated."""
    for path in _strays(files):
        (ROOT / path).unlink()
    for path, text in files.items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text)


def differences(files: Mapping[Path, str]) -> Iterator[str]:
    """One text for each file that is not as it should be."""
    for path in _strays(files):
        yield f"{path} is no longer generated"
    for path, text in files.items():
        there = (ROOT / path).read_text() if (ROOT / path).exists() else ""
        lines = list(difflib.unified_diff(there.splitlines(), text.splitlines(), str(path), "generated", lineterm=""))
        if lines:
            yield "\n".join(lines[:SHOWN_LINES])


def _strays(files: Mapping[Path, str]) -> list[Path]:
    folders = {path.parent for path in files if path.parent.name in ("crds", "dashboards")}
    return [
        path
        for folder in folders
        for found in (ROOT / folder).glob("*")
        if (path := found.relative_to(ROOT)) not in files
    ]


def main(arguments: list[str]) -> int:
    """Returns the exit code: 1 when a file is out of date."""
    check = arguments == ["--check"]
    if not check:
        write(from_models())  # the chart that Helm reads has some of them in it
    try:
        files = from_models() | from_chart()
    except Unavailable as reason:
        print(f"manifests/install.yaml is left as it is: {reason}", file=sys.stderr)
        files = from_models()
    if not check:
        write(files)
        return 0
    found = list(differences(files))
    print("\n".join([*found, "run 'make generate' and commit the result"] if found else ["generated files are fresh"]))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
