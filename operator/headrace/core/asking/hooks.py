"""Calling back whoever has asked, in the form of Standard Webhooks: whom, when again, and with what.

A URL was written by a caller and is called from inside. So its host must be one that is allowed, its address one that is public, and a
redirect is not followed, wherever it leads.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from ipaddress import ip_address
from urllib.parse import urlsplit

import orjson
from standardwebhooks import Webhook
from standardwebhooks.webhooks import EmptyWebhookSecretError

from headrace.api.addresses import AddressPolicy
from headrace.api.asking import Webhooks
from headrace.api.base import JsonObject
from headrace.core.openai.errors import ApiError, bad_request

DELAYS_SECONDS = (1, 2, 4)
"""Before the second, third and fourth call; there is no fifth."""
_LONGEST_URL = 2048
_MOST_KEYS = 2
_FIELD = "Headrace-Webhook"
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_]([-a-z0-9_]{0,62})(\.[a-z0-9_]([-a-z0-9_]{0,62}))*\.?")
"""A host that a name server could be asked for; what is none is read in one way here and in another by who calls it."""


def policy(webhooks: Webhooks) -> AddressPolicy:
    """Where calls may go."""
    return AddressPolicy(webhooks.allowed_hosts, webhooks.allowed_networks)


def target(url: str | None, webhooks: Webhooks | None) -> str | None:
    """The URL that a caller wants to be called at; None when it wants no call. Raises `ApiError` for one that is not allowed."""
    if url is None:
        return None
    if webhooks is None:
        raise bad_request("no webhooks are called here: leave the header out", _FIELD, "webhooks_off")
    schemes = ("https", "http") if webhooks.allowed_networks else ("https",)
    host = _host(url, schemes)
    if host is None:
        message = f"it must be a URL of a host that begins with {' or '.join(schemes)}://, without a user name"
        raise bad_request(message, _FIELD, "invalid_value")
    allowed = policy(webhooks)
    if not allowed.allows_host(host) or (_is_address(host) and not allowed.allows_address(host)):
        known = ", ".join(webhooks.allowed_hosts)
        raise ApiError(403, f"{host[:80]} may not be called: only {known}", _FIELD, "target_not_allowed")
    return url


def pause_after(calls: int) -> int | None:
    """Seconds to the next call, after so many that have failed; None when there is no next one."""
    return DELAYS_SECONDS[calls - 1] if calls <= len(DELAYS_SECONDS) else None


def keys_in(text: str) -> tuple[Webhook, ...]:
    """The keys in a file. Raises `ValueError`, which says what is wrong with it and nothing of the keys."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not 1 <= len(lines) <= _MOST_KEYS or not all(line.startswith("whsec_") for line in lines):
        raise ValueError("it must have one key, or two, each in a line of its own that begins with whsec_")
    try:
        return tuple(Webhook(line) for line in lines)
    except (ValueError, EmptyWebhookSecretError) as error:
        raise ValueError("after whsec_ each key must be in Base64") from error


def message(shown: JsonObject, now: datetime) -> str:
    """The body of a call, about a request as it is shown."""
    said = {"type": f"request.{shown['status']}", "timestamp": now.isoformat(), "data": shown}
    return orjson.dumps(said).decode()


def signed(request_id: str, text: str, keys: tuple[Webhook, ...], now: datetime) -> dict[str, str]:
    """The headers of a call. Its id is that of the request, so that whoever is called twice knows it."""
    utc = now.astimezone(UTC)
    return {
        "webhook-id": request_id,
        "webhook-timestamp": str(int(utc.timestamp())),
        "webhook-signature": " ".join(key.sign(request_id, utc, text) for key in keys),
        "content-type": "application/json",
    }


def _is_address(host: str) -> bool:
    """Whether no name need be looked up: then nobody else asks whether it is allowed."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _host(url: str, schemes: tuple[str, ...]) -> str | None:
    """The host of a URL; None for one that cannot be called."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    is_plain = len(url) <= _LONGEST_URL and url.isascii() and url.isprintable() and parts.username is None
    is_host = port != 0 and (_NAME.fullmatch(host) is not None or _is_address(host))
    return host if is_plain and is_host and parts.scheme in schemes else None
