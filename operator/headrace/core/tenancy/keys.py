"""Keys of tenants: 256 random bits, of which a hash is kept.

A hash for passwords is slow because passwords can be guessed. Nobody guesses such a key, so one that is fast protects it as well, and a
flood of wrong keys costs little.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from hashlib import sha256

from headrace.api.base import FieldError
from headrace.api.tenancy import KeyedTenants, Tenant
from headrace.core.openai.errors import ApiError

KEY_BYTES = 32
PROTOCOL = "headrace.dev"
"""What a client may call the protocol of its WebSocket, and must where it offers any."""
_BEARER_PROTOCOL = f"base64url.bearer.authorization.{PROTOCOL}."
"""Begins what a browser says instead of a header, as for Kubernetes: its WebSockets send no others."""
_PREFIX = "hrk_"
"""So that a key that was left somewhere is seen for what it is."""


def new_key(random: bytes) -> str:
    """A key of so many random bytes."""
    return _PREFIX + urlsafe_b64encode(random).decode().rstrip("=")


def key_hash(key: str) -> str:
    """What is kept of a key."""
    return f"sha256:{sha256(key.encode(errors='replace')).hexdigest()}"


def tenant_of_key(key: str, known: KeyedTenants) -> Tenant | None:
    """Whose key it is; None for nobody's. All are looked at, each to its end: how long that takes says nothing of any."""
    wanted, found = key_hash(key), None
    for one in known.tenants:
        for kept in one.keys:
            if hmac.compare_digest(kept, wanted):
                found = one
    return found.tenant if found is not None else None


def bearer(authorization: str | None, protocols: Iterable[str] = ()) -> str:
    """The key or token in the header `Authorization`, or in one of the protocols that a browser offers. Raises `ApiError`.

    A browser asks its user for a name and a password, which is the key, and the name does not matter.
    """
    if authorization is not None:
        scheme, _, said = authorization.partition(" ")
        if scheme.lower() == "bearer" and said.strip():
            return said.strip()
        if scheme.lower() == "basic":
            return _password(said.strip())
        raise unknown("the header Authorization must be: Bearer KEY")
    for protocol in protocols:
        if protocol.startswith(_BEARER_PROTOCOL):
            return _decoded(protocol.removeprefix(_BEARER_PROTOCOL))
    raise unknown("there is no key: send it in the header Authorization: Bearer KEY")


def offered(header: str | None) -> list[str]:
    """The protocols in the header `Sec-WebSocket-Protocol`."""
    return [one.strip() for one in (header or "").split(",") if one.strip()]


def unknown(message: str) -> ApiError:
    """The refusal of somebody who is no tenant."""
    return ApiError(401, message, "Authorization", "invalid_api_key")


def tenant_faults(known: KeyedTenants) -> list[FieldError]:
    """Names, namespaces and keys that would mean two tenants."""
    faults, seen = [], set[tuple[str, str]]()
    for index, one in enumerate(known.tenants):
        namespace = one.namespace or one.name
        said = [("name", one.name, one.name), ("namespace", namespace, namespace)]
        said += [(f"keys[{at}]", key, "that key") for at, key in enumerate(one.keys)]
        for field, value, shown in said:
            kind = field.partition("[")[0]
            if (kind, value) in seen:
                faults.append(
                    FieldError(f"tenants[{index}].{field}", f"{shown} is there before: each must be one's own")
                )
            seen.add((kind, value))
    return faults


def _password(text: str) -> str:
    try:
        return b64decode(text, validate=True).decode().partition(":")[2]
    except ValueError as error:  # also for what is no UTF-8
        raise unknown("the name and the key in Authorization: Basic must be in Base64") from error


def _decoded(text: str) -> str:
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except ValueError as error:  # also for what is no UTF-8
        raise unknown("the key in Sec-WebSocket-Protocol must be in base64url") from error
