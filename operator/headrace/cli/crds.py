"""`headrace crds`."""

from __future__ import annotations

from pathlib import Path

from headrace.api.crd import render_crds
from headrace.cli.text import say


def crds(output_dir: Path | None) -> int:
    """Print the CustomResourceDefinitions as one stream, or write each into its own file."""
    rendered = render_crds()
    if output_dir is None:
        say("\n---\n".join(text.strip() for text in rendered.values()))
        return 0
    output_dir.mkdir(parents=True, exist_ok=True)
    for name, text in rendered.items():
        (output_dir / name).write_text(text)
        say(str(output_dir / name))
    return 0
