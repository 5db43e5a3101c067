"""`headrace crds`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from headrace.api.crd import render_crds
from headrace.cli.options import JsonOutput
from headrace.cli.text import say, say_json


def crds(output_dir: Path | None, output: JsonOutput) -> int:
    """Print the CustomResourceDefinitions as one stream or one List, or write each into its own file and print their names."""
    rendered = render_crds()
    if output == JsonOutput.JSON:
        say_json({"apiVersion": "v1", "kind": "List", "items": [yaml.safe_load(text) for text in rendered.values()]})
    elif output_dir is None:
        say("\n---\n".join(text.strip() for text in rendered.values()))
    if output_dir is not None:
        _write(output_dir, rendered)
        if output == JsonOutput.TEXT:
            say("\n".join(str(output_dir / name) for name in rendered))
    return 0


def _write(folder: Path, rendered: Mapping[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in rendered.items():
        (folder / name).write_text(text)
