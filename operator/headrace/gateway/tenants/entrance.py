"""What every request passes before anything is done for it: whose it is is found out here, and nowhere else."""

from __future__ import annotations

from cachetools import LRUCache
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.api.tenancy import Tenant
from headrace.core.httpapi.operations import OPERATIONS
from headrace.core.openai.errors import ApiError
from headrace.core.tenancy.rates import Bucket, after_request, rate_headers, too_fast
from headrace.gateway.clocks import Clock
from headrace.gateway.tenants.identities import Identities
from headrace.gateway.web.replies import refusal

OPEN_PATHS = frozenset(one.path for one in OPERATIONS if one.is_open)
"""What is answered to anybody. A path that is not here asks for a tenant."""
_TENANT = "headrace.tenant"
_MOST_BUCKETS = 10_000


def tenant_of(request: HTTPConnection) -> Tenant:
    """Whose request it is."""
    tenant = request.scope[_TENANT]
    assert isinstance(tenant, Tenant)
    return tenant


class Entrance:
    """Lets in those who are a tenant, and as often as they may come."""

    def __init__(self, app: ASGIApp, identities: Identities, clock: Clock) -> None:
        self._app, self._identities, self._clock = app, identities, clock
        self._buckets: LRUCache[str, Bucket] = LRUCache(_MOST_BUCKETS)
        """By namespace. One that is forgotten was not asked for long, or is one of very many, and is full again."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note whose request it is, and pass it on."""
        if scope["type"] in ("http", "websocket") and scope["path"] not in OPEN_PATHS:
            try:
                tenant = scope[_TENANT] = await self._identities.tenant(HTTPConnection(scope))
                send = self._counted(tenant, send)
            except ApiError as error:
                await refusal(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _counted(self, tenant: Tenant, send: Send) -> Send:
        """What tells the tenant, with the answer, how much it may still ask. Raises `ApiError` when that is nothing."""
        limits = tenant.limits
        if limits is None:
            return send
        bucket, may = after_request(self._buckets.get(tenant.namespace), limits, self._clock.now())
        self._buckets[tenant.namespace] = bucket
        if not may:
            raise too_fast(bucket, limits)
        told = rate_headers(bucket, limits)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(told)
            await send(message)

        return answer
