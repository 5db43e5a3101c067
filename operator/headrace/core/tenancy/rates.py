"""How fast a tenant may ask: a bucket of tokens that fills by itself, of which each request takes one."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from headrace.api.tenancy import TenantLimits
from headrace.core.openai.errors import ApiError, too_many

_MINUTE = 60_000


class Bucket(NamedTuple):
    """What a tenant has left."""

    tokens: float
    at: int
    """Milliseconds since the epoch."""


def after_request(bucket: Bucket | None, limits: TenantLimits, now: int) -> tuple[Bucket, bool]:
    """What is left after one more request, and whether that may be answered. None for a tenant who has not asked for long."""
    tokens = float(limits.burst)
    if bucket is not None:
        past = max(0, now - bucket.at)  # a clock may be set back
        tokens = min(tokens, bucket.tokens + past * limits.requests_per_minute / _MINUTE)
    return (Bucket(tokens - 1, now), True) if tokens >= 1 else (Bucket(tokens, now), False)


def too_fast(bucket: Bucket, limits: TenantLimits) -> ApiError:
    """The refusal of a request for which there is no token."""
    seconds = ceil((1 - bucket.tokens) * 60 / limits.requests_per_minute)
    message = (
        f"{limits.requests_per_minute} requests a minute, and {limits.burst} at once, is what this tenant may send"
    )
    return too_many(message, max(1, seconds), "rate_limit_exceeded")


def rate_headers(bucket: Bucket, limits: TenantLimits) -> dict[str, str]:
    """What OpenAI's clients look at: how many requests there may be at once, how many are left, and when all are there again."""
    until_full = ceil((limits.burst - bucket.tokens) * _MINUTE / limits.requests_per_minute)
    return {
        "x-ratelimit-limit-requests": str(limits.burst),
        "x-ratelimit-remaining-requests": str(int(bucket.tokens)),
        "x-ratelimit-reset-requests": f"{until_full}ms",
    }
