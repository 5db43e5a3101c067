"""Leader election: keep a Lease while we act, give it back when we stop.

The Lease is kept on a loop and over connections of its own: who has much to do still says in time that it is there. Whether it may act
can be asked from anywhere. Whether it gets on with its work is for the liveness probe to find out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime

from headrace.api.base import JsonObject
from headrace.core.election import Action, Candidacy, Lease
from headrace.shells.kube.api import Api
from headrace.shells.kube.aside import Aside
from headrace.shells.kube.errors import ApiError, Conflict, NotFound, TransientFailure
from headrace.shells.kube.resources import LEASES

logger = logging.getLogger(__name__)

LEASE_NAME = "headrace-operator"


class Elector:
    """One candidate for the Lease."""

    def __init__(
        self, api: Api, namespace: str, candidacy: Candidacy, aside: Aside, lease_name: str = LEASE_NAME
    ) -> None:
        """`api` is used on the loop of `aside` alone."""
        self._api, self._namespace, self._aside, self._name = api, namespace, aside, lease_name
        self._candidacy, self._terms = candidacy, candidacy.terms
        self.problem = ""
        """Why the Lease could not be read or written last time; empty when it could."""

    @property
    def leads(self) -> bool:
        """Whether we may act at this moment."""
        return self._candidacy.may_act_for(_clock()) > 0

    async def acquire(self) -> None:
        """Return when we lead."""
        await self._aside.run(self._acquire())

    async def keep(self) -> None:
        """Renew until it is lost; then return, at the latest when others may soon take it."""
        await self._aside.run(self._keep())

    async def release(self) -> None:
        """Give the Lease back, so that the next one need not wait for it to run out."""
        await self._aside.run(self._release())

    async def _acquire(self) -> None:
        while True:
            await self._try(self._terms.renew_seconds)
            if self.leads:
                logger.info("%s leads", self._candidacy.identity)
                return
            await asyncio.sleep(self._candidacy.look_again_after(_clock()))

    async def _keep(self) -> None:
        # A server that is busy may take its time; but there must be time for a second try.
        longest = self._terms.give_up_seconds / 2
        tried_at = _clock()
        while left := self._candidacy.may_act_for(_clock()):
            await asyncio.sleep(min(tried_at + self._terms.renew_seconds - _clock(), left))
            tried_at = _clock()
            await self._try(min(longest, self._candidacy.may_act_for(tried_at)))
        logger.error("the lease is lost: %s", self.problem or f"not renewed for {self._terms.give_up_seconds} s")

    async def _release(self) -> None:
        self._candidacy = Candidacy(self._candidacy.identity, self._terms)
        try:
            found = await self._api.get(LEASES, self._namespace, self._name)
            if found["spec"].get("holderIdentity") == self._candidacy.identity:
                found["spec"]["holderIdentity"] = ""
                await self._api.replace(LEASES, self._namespace, found)
        except (TransientFailure, ApiError) as error:
            seconds = self._terms.lease_seconds
            logger.warning("the lease could not be given back, it runs out in %d s: %s", seconds, error)

    async def _try(self, seconds: float) -> None:
        """One look, and the write that follows from it, within so many seconds."""
        now = _clock()
        try:
            async with asyncio.timeout(seconds):
                found = await self._read()
                lease = _lease(found) if found is not None else None
                self._candidacy, action = self._candidacy.look(lease, now)
                if action != Action.WAIT:
                    await self._write(found, action, now)
            self.problem = ""
        except Conflict:
            return  # somebody else was faster: the next look tells who
        except (TransientFailure, ApiError, TimeoutError) as error:
            self.problem = f"the lease {self._namespace}/{self._name}: {str(error) or 'no answer in time'}"
            logger.warning("%s", self.problem)

    async def _read(self) -> JsonObject | None:
        try:
            return await self._api.get(LEASES, self._namespace, self._name)
        except NotFound:
            return None

    async def _write(self, found: JsonObject | None, action: Action, now: float) -> None:
        body = found if found is not None else _new_lease(self._name)
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        body["spec"] |= {
            "holderIdentity": self._candidacy.identity,
            "leaseDurationSeconds": self._terms.lease_seconds,
            "renewTime": stamp,
        }
        if action != Action.RENEW:
            body["spec"] |= {"acquireTime": stamp, "leaseTransitions": body["spec"].get("leaseTransitions", 0) + 1}
        write = self._api.create if action == Action.CREATE else self._api.replace
        written = await write(LEASES, self._namespace, body)
        self._candidacy = self._candidacy.wrote(_lease(written).version, now)


def _new_lease(name: str) -> JsonObject:
    return {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": {"name": name}, "spec": {}}


def _lease(obj: JsonObject) -> Lease:
    return Lease(obj["spec"].get("holderIdentity") or "", obj["metadata"]["resourceVersion"])


def _clock() -> float:
    return time.monotonic()
