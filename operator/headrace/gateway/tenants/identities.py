"""The port between requests and those who know from whom they come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from starlette.requests import HTTPConnection

from headrace.api.asking import Webhooks
from headrace.api.tenancy import Tenant


class Identities(Protocol):
    """Who is who."""

    @property
    def may_call(self) -> bool:
        """Whether any tenant has webhooks, or may get some."""

    async def tenant(self, request: HTTPConnection) -> Tenant:
        """The tenant that a request comes from. Raises `ApiError`: 401 or 403 when there is none, 503 when that cannot be found out."""

    def webhooks(self, namespace: str) -> Webhooks | None:
        """Those of the tenant who has that namespace, now; None when it has none."""


@dataclass(frozen=True, slots=True)
class Everybody:
    """`Identities` of a gateway without keys: whoever reaches it is the one tenant."""

    only: Tenant

    @property
    def may_call(self) -> bool:
        """Whether the file of the models says so."""
        return self.only.webhooks is not None

    async def tenant(self, _: HTTPConnection) -> Tenant:
        """That one."""
        return self.only

    def webhooks(self, _: str) -> Webhooks | None:
        """Those that the file of the models says."""
        return self.only.webhooks
