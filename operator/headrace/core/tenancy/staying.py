"""Whether whoever has opened a connection may go on with it."""

from __future__ import annotations

from headrace.core.openai.errors import ApiError

UNKNOWN_MILLISECONDS = 60_000
"""How long somebody stays of whom nobody can say whether he may: as long as an API server takes to be started again."""


def is_sent_away(error: ApiError, known: int, now: int) -> bool:
    """Whether a connection ends whose owner would not be let in now; `known`: when he would have been last."""
    return error.status < 500 or now - known >= UNKNOWN_MILLISECONDS
