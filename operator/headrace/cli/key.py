"""`headrace key`: a key for a tenant of a gateway."""

from __future__ import annotations

import secrets

from headrace.cli.text import say
from headrace.core.tenancy.keys import KEY_BYTES, key_hash, new_key


def key() -> int:
    """Print one, and what is to be kept of it."""
    made = new_key(secrets.token_bytes(KEY_BYTES))
    say(f"key:  {made}")
    say(f"hash: {key_hash(made)}")
    return 0
