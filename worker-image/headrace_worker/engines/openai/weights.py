"""Weights of endpoints that may change while a batch runs: files of a mounted ConfigMap, which the kubelet keeps up to date."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from headrace.api.engines import MOST_WEIGHT, WeightsRef
from headrace.api.worker import Env

LOOK_SECONDS = 5.0
"""How often they are read again."""

log = logging.getLogger(__name__)


class Weights:
    """The weights in a ConfigMap, or none."""

    def __init__(self, ref: WeightsRef | None, names: Iterable[str], env: Mapping[str, str]) -> None:
        """`names`: the endpoints."""
        folder = env.get(Env.CONFIG_MAPS)
        self._folder = Path(folder, ref.name) if ref is not None and folder else None
        self._names = tuple(names)
        self._said: dict[str, str] = {}
        self._due = float("-inf")

    def changed(self, now: float) -> Mapping[str, int] | None:
        """All weights that are said, if they are not those of the last time; looked up every few seconds."""
        if self._folder is None or now < self._due:
            return None
        self._due = now + LOOK_SECONDS
        said = {name: text for name in self._names if (text := _text(self._folder / name)) is not None}
        if said == self._said:
            return None
        self._said = said
        weights = {name: int(text) for name, text in said.items() if _is_weight(name, text)}
        log.info(
            "weights of endpoints: %s", ", ".join(f"{name} {it}" for name, it in weights.items()) or "as in the spec"
        )
        return weights


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # it is not named, or the ConfigMap is not there
        return None


def _is_weight(name: str, text: str) -> bool:
    if text.isascii() and text.isdecimal() and int(text[:9]) <= MOST_WEIGHT and len(text) < 9:
        return True
    log.warning(
        "the weight of the endpoint %s must be a whole number from 0 to %d, not %r: it is left out",
        name,
        MOST_WEIGHT,
        text[:40],
    )
    return False
