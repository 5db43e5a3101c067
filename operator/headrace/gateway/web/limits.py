"""How much clients may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of single requests."""

    file_bytes: int = 2 * 2**30
    """Largest file that is taken."""
    patience_seconds: float = 60.0
    """How long a client is waited for that sends next to nothing of a body."""
