"""How much each tenant has uploaded and is uploading, so that no number of uploads at a time goes past what it may have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from headrace.api.tenancy import Tenant, TenantLimits
from headrace.core.tenancy.bounds import check_files, check_stored
from headrace.gateway.places.place import Place


@dataclass
class _Stock:
    """Of one tenant."""

    kept: int = 0
    """Bytes of its files, as far as anybody has looked."""
    coming: int = 0
    """Bytes of its uploads that are under way."""
    uploads: int = 0
    """How many these are."""


class Share:
    """What one upload takes of it."""

    def __init__(self, stock: _Stock, limits: TenantLimits | None) -> None:
        self._stock, self._limits, self._size = stock, limits, 0

    def add(self, size: int) -> None:
        """So much more has come. Raises `ApiError` when it is more than the tenant may have."""
        self._size += size
        self._stock.coming += size
        if self._limits is not None:
            check_stored(self._stock.kept + self._stock.coming, self._limits)

    def keep(self) -> None:
        """It is a file now."""
        self._stock.kept += self._size

    def close(self) -> None:
        """It is not under way any more."""
        self._stock.coming -= self._size


class Stocks:
    """Of all tenants."""

    def __init__(self) -> None:
        self._known: dict[str, _Stock] = {}

    @asynccontextmanager
    async def share(self, tenant: Tenant, place: Place) -> AsyncIterator[Share]:
        """An upload of a tenant, while the block lasts. Raises `ApiError` when it may have no more files."""
        stock = self._known.setdefault(tenant.namespace, _Stock())
        stock.uploads += 1
        try:
            if tenant.limits is not None:
                files = await place.uploads()
                stock.kept = sum(file.bytes for file in files)
                check_files(len(files) + stock.uploads - 1, tenant.limits)
            share = Share(stock, tenant.limits)
            try:
                yield share
            finally:
                share.close()
        finally:
            stock.uploads -= 1
            if not stock.uploads:
                self._known.pop(tenant.namespace, None)
