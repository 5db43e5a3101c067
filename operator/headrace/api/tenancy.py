"""Tenants of a gateway: whose requests they are, where what belongs to them is kept, and how much they may have."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from headrace.api.asking import Webhooks
from headrace.api.base import ApiModel, Name

KeyHash: TypeAlias = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
"""What is kept of a key: enough to know it by, and nothing that opens anything."""
_MANY = 2**53


class TenantLimits(ApiModel):
    """How much one tenant may have. Nobody else's share is touched by what is beyond that."""

    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] = 6000
    """HTTP requests of any sort, over time; more are answered with 429."""
    burst: Annotated[int, Field(ge=1, le=1_000_000)] = 600
    """How many of them may come at once."""
    max_file_bytes: Annotated[int, Field(ge=1, le=_MANY)] = 2 * 2**30
    """Largest file that it may upload. The gateway has a bound of its own besides."""
    max_files: Annotated[int, Field(ge=0, le=1_000_000)] = 1000
    """Uploaded files that it may have."""
    max_stored_bytes: Annotated[int, Field(ge=0, le=_MANY)] = 100 * 2**30
    """Bytes that these may have together."""
    max_open_batches: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    """Batches of files that may be under way, or wait for their turn."""
    max_queued: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Single requests that may wait on each route; where the route has less room, that holds."""
    max_streams: Annotated[int, Field(ge=0, le=100_000)] = 100
    """Connections at a time that wait to be told of requests."""


class Tenant(ApiModel):
    """One for whom requests are answered. All that it has is in its namespace, and it sees nothing else."""

    name: Name
    """What logs call it."""
    namespace: Name
    """Where its batches, files and requests are; no other tenant has the same."""
    limits: TenantLimits | None = None
    """None where only the bounds of the gateway hold."""
    webhooks: Webhooks | None = None
    """Calls when its requests have ended; without it none are made."""


class KeyedTenant(ApiModel):
    """A tenant who is known by keys."""

    name: Name
    """What logs call it."""
    namespace: Name | None = None
    """Where all that it has is; that of its name unless it is said."""
    keys: Annotated[tuple[KeyHash, ...], Field(max_length=16)]
    """What `headrace key` prints of its keys. Several are for the time in which one takes the place of another; none lets nobody in."""
    limits: TenantLimits = TenantLimits()
    """How much it may have."""
    webhooks: Webhooks | None = None
    """Calls when its requests have ended; without it none are made. Its signing keys are its own."""

    @property
    def tenant(self) -> Tenant:
        """It, without its keys."""
        return Tenant(name=self.name, namespace=self.namespace or self.name, limits=self.limits, webhooks=self.webhooks)


class KeyedTenants(ApiModel):
    """All tenants of a gateway with keys."""

    tenants: Annotated[tuple[KeyedTenant, ...], Field(min_length=1, max_length=1000)]
    """Who may use it."""
