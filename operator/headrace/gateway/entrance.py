"""What every request passes before anything is done for it: whose it is is found out here, and nowhere else."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.api.tenancy import Tenant
from headrace.core.httpapi.operations import OPERATIONS
from headrace.core.openai.errors import ApiError
from headrace.gateway.identities import Identities
from headrace.gateway.replies import refusal

OPEN_PATHS = frozenset(one.path for one in OPERATIONS if one.is_open)
"""What is answered to anybody. A path that is not here asks for a tenant."""
_TENANT = "headrace.tenant"


def tenant_of(request: HTTPConnection) -> Tenant:
    """Whose request it is."""
    tenant = request.scope[_TENANT]
    assert isinstance(tenant, Tenant)
    return tenant


class Entrance:
    """Lets in those who are a tenant."""

    def __init__(self, app: ASGIApp, identities: Identities) -> None:
        self._app, self._identities = app, identities

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note whose request it is, and pass it on."""
        if scope["type"] in ("http", "websocket") and scope["path"] not in OPEN_PATHS:
            try:
                scope[_TENANT] = await self._identities.tenant(HTTPConnection(scope))
            except ApiError as error:
                await refusal(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)
