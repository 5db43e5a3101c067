"""The port between requests and those who know from whom they come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from starlette.requests import HTTPConnection

from headrace.api.tenancy import Tenant


class Identities(Protocol):
    """Who is who."""

    async def tenant(self, request: HTTPConnection) -> Tenant:
        """The tenant that a request comes from. Raises `ApiError`: 401 or 403 when there is none, 503 when that cannot be found out."""


@dataclass(frozen=True, slots=True)
class Everybody:
    """`Identities` of a gateway without keys: whoever reaches it is the one tenant."""

    only: Tenant

    async def tenant(self, _: HTTPConnection) -> Tenant:
        """That one."""
        return self.only
