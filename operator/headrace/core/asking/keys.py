"""Idempotency-Key: the same request under the same key is one request, and another under it is refused."""

from __future__ import annotations

import json
from hashlib import sha256

from headrace.api.asking import KnownKey
from headrace.api.base import JsonObject
from headrace.core.openai.errors import bad_request, conflict

KEPT_SECONDS = 86_400
"""How long a key is remembered."""
_CHARACTERS = 255


def key_name(key: str) -> str:
    """What a key is kept under. Raises `ApiError` for one that is none."""
    if not 0 < len(key) <= _CHARACTERS:
        raise bad_request(f"Idempotency-Key must have 1 to {_CHARACTERS} characters", "Idempotency-Key")
    return sha256(key.encode()).hexdigest()


def digest(route: str, body: JsonObject, webhook: str | None = None) -> str:
    """Stands for all that was asked; the order of names and the blanks between them do not matter."""
    text = json.dumps([route, body, *([webhook] if webhook is not None else [])], sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()


def same_request(known: KnownKey, asked: KnownKey) -> KnownKey:
    """The request that a key stands for. Raises `ApiError` when something else is asked for under it now."""
    if known.digest != asked.digest:
        message = "this Idempotency-Key was used before, for a request with another body: send a new key"
        raise conflict(message, "Idempotency-Key", "idempotency_key_reused")
    return known
