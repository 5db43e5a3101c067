"""All of a cluster that admission looks at, as a user sees it."""

from __future__ import annotations

from headrace.api.base import InvalidSpec, JsonObject
from headrace.api.bulkhead import Bulkhead
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import Kind, StandingObject
from headrace.api.labels import API_VERSION
from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.core.admission.foresee import Picture
from headrace.shells.kube.api import Api
from headrace.shells.kube.resources import BATCHES, BULKHEADS, NAMESPACES, SCHEDULES, Resource


async def take_picture(api: Api) -> Picture:
    """List it. Objects of another version are left out. Raises `ApiError` and `TransientFailure`."""
    batches = [one for found in await _all(api, BATCHES) if (one := _batch(found)) is not None]
    namespaces = {it["metadata"]["name"]: it["metadata"].get("labels", {}) for it in await _all(api, NAMESPACES)}
    bulkheads = [Bulkhead.parse({**_head(BULKHEADS), **found}) for found in await _all(api, BULKHEADS)]
    return Picture(tuple(batches), tuple(bulkheads), namespaces)


async def standing(api: Api, kind: Kind, namespace: str | None) -> list[StandingObject]:
    """All objects of a kind that does not run itself, by name.

    Raises `InvalidSpec` for one of another version, `ApiError` and `TransientFailure`.
    """
    resource = next(it for it in (BULKHEADS, SCHEDULES) if it.kind == kind.name)
    model = Bulkhead if resource is BULKHEADS else ScheduledGeneration
    return [model.parse({**_head(resource), **found}) for found in await _all(api, resource, namespace)]


def _batch(found: JsonObject) -> InferenceBatch | None:
    try:
        return InferenceBatch.parse({**_head(BATCHES), **found})
    except InvalidSpec:
        return None


def _head(resource: Resource) -> dict[str, str]:
    return {"apiVersion": API_VERSION, "kind": resource.kind}


async def _all(api: Api, resource: Resource, namespace: str | None = None) -> list[JsonObject]:
    return [found async for page in api.pages(resource, namespace) for found in page["items"]]
