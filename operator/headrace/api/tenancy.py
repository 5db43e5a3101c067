"""Tenants of a gateway: whose requests they are, where what belongs to them is kept, and how much they may have."""

from __future__ import annotations

from headrace.api.base import ApiModel, Name


class Tenant(ApiModel):
    """One for whom requests are answered. All that it has is in its namespace, and it sees nothing else."""

    name: Name
    """What logs call it."""
    namespace: Name
    """Where its batches, files and requests are; no other tenant has the same."""
