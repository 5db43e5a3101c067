"""Tenants by the tokens of a cluster: its API server says whose each is, and whether that user may make batches where it asks to."""

from __future__ import annotations

import asyncio
import logging
from hashlib import sha256
from typing import NamedTuple

from cachetools import TTLCache
from starlette.requests import HTTPConnection

from headrace.api.asking import Webhooks
from headrace.api.tenancy import Tenant, TenantLimits
from headrace.core.openai.errors import ApiError
from headrace.core.tenancy.keys import bearer, offered
from headrace.core.tenancy.reviews import (
    ALLOWED_SECONDS,
    HEADERS,
    REFUSED_SECONDS,
    access_review,
    cannot_tell,
    check_access,
    namespace_of,
    token_review,
    user_of,
)
from headrace.gateway.clocks import Clock
from headrace.shells.kube.api import Api
from headrace.shells.kube.errors import ApiError as KubeError
from headrace.shells.kube.errors import TransientFailure
from headrace.shells.kube.resources import SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS

logger = logging.getLogger(__name__)

_MOST_REMEMBERED = 10_000
_REFUSED = (400, 401, 403)


class _Asked(NamedTuple):
    """A token, by its hash, and the namespace that is asked for with it."""

    token: str
    wanted: str | None


class Reviewed:
    """`Identities` of a cluster. What it has said holds for a few seconds; the good and the bad do not crowd each other out."""

    def __init__(
        self, api: Api, clock: Clock, audiences: tuple[str, ...] = (), limits: TenantLimits | None = None
    ) -> None:
        """`audiences`: tokens must be meant for one of these; none for those of the API server. `limits`: of each namespace."""
        self._api, self._audiences, self._limits = api, audiences, limits

        def seconds() -> float:
            return clock.now() / 1000

        self._allowed: TTLCache[_Asked, Tenant] = TTLCache(_MOST_REMEMBERED, ALLOWED_SECONDS, seconds)
        self._refused: TTLCache[_Asked, ApiError] = TTLCache(_MOST_REMEMBERED, REFUSED_SECONDS, seconds)
        self._asking: dict[_Asked, asyncio.Task[Tenant]] = {}
        """Questions that are under way: many requests with one token wait for one answer."""

    @property
    def may_call(self) -> bool:
        """Nobody says yet what the calls of a namespace would be signed with."""
        return False

    async def tenant(self, request: HTTPConnection) -> Tenant:
        """The namespace that the request is about, of whoever may make batches there."""
        headers = request.headers
        token = bearer(headers.get("authorization"), offered(headers.get("sec-websocket-protocol")))
        wanted = next((headers[name] for name in HEADERS if name in headers), None)
        asked = _Asked(sha256(token.encode(errors="replace")).hexdigest(), wanted)
        if (known := self._allowed.get(asked)) is not None:
            return known
        if (refused := self._refused.get(asked)) is not None:
            raise ApiError(refused.status, refused.message, refused.param, refused.code)
        if asked not in self._asking:
            task = self._asking[asked] = asyncio.create_task(self._review(token, asked))
            task.add_done_callback(lambda done: self._answered(asked, done))
        return await asyncio.shield(self._asking[asked])

    def webhooks(self, _: str) -> Webhooks | None:
        """None."""
        return None

    async def _review(self, token: str, asked: _Asked) -> Tenant:
        try:
            answer = await self._api.create(TOKEN_REVIEWS, "", token_review(token, self._audiences))
            user = user_of(answer, self._audiences)
            namespace = namespace_of(user, asked.wanted)
            answer = await self._api.create(SUBJECT_ACCESS_REVIEWS, "", access_review(user, namespace))
            check_access(answer, user, namespace)
        except (TransientFailure, KubeError) as error:  # of the second sort is that the gateway itself may not ask
            logger.error("who is who cannot be found out: %s", error)
            raise cannot_tell() from error
        return Tenant(name=namespace, namespace=namespace, limits=self._limits)

    def _answered(self, asked: _Asked, done: asyncio.Task[Tenant]) -> None:
        del self._asking[asked]
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            self._allowed[asked] = done.result()
        elif isinstance(error, ApiError) and error.status in _REFUSED:
            self._refused[asked] = error
