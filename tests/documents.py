"""The YAML in the documentation: whole objects, fragments of a spec, and values of the chart."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from headrace.shells.localising import work_specs

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Snippet:
    """One YAML document of a page."""

    where: str
    """Page and line."""
    document: dict[str, Any]


def snippets() -> Iterator[Snippet]:
    """All of them."""
    for page in PAGES:
        text = page.read_text()
        for block in _BLOCK.finditer(text):
            line = text.count("\n", 0, block.start()) + 1
            for document in yaml.safe_load_all(block[1]):
                yield Snippet(f"{page.relative_to(ROOT)}:{line}", document)


def resolved(document: dict[str, Any]) -> dict[str, Any]:
    """The document with a path beside the manifest, which only a laptop has, as the URI that `headrace run` makes of it."""
    whole = copy.deepcopy(document)
    for _, spec in work_specs(whole):
        for field, key in (("input", "uri"), ("evaluation", "reference")):
            uri = (spec or {}).get(field, {}).get(key, "")
            if uri and "://" not in uri:
                spec[field][key] = f"file:///{uri}"
    return whole


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """One mapping laid over another, at every depth."""
    both = {
        key: merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
        for key, value in over.items()
    }
    return {**base, **both}
