"""Sets of shard indexes as Kubernetes writes them: `0-3,7`."""

from __future__ import annotations

from collections.abc import Iterable


def parse_ranges(text: str) -> frozenset[int]:
    """The indexes in `0-3,7`; the empty text is the empty set."""
    indexes: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        indexes.update(range(int(first), int(last or first) + 1))
    return frozenset(indexes)


def format_ranges(indexes: Iterable[int]) -> str:
    """The shortest `0-3,7` for some indexes."""
    runs: list[list[int]] = []
    for index in sorted(set(indexes)):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
