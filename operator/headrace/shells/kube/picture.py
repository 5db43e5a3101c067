"""All of a cluster that admission looks at, as a user sees it."""

from __future__ import annotations

from headrace.api.base import InvalidSpec, JsonObject
from headrace.api.bulkhead import Bulkhead
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.labels import API_VERSION
from headrace.core.admission.foresee import Picture
from headrace.shells.kube.api import Api
from headrace.shells.kube.resources import BATCHES, BULKHEADS, NAMESPACES, Resource


async def take_picture(api: Api) -> Picture:
    """List it. Objects of another version are left out. Raises `ApiError` and `TransientFailure`."""
    batches = [one for found in await _all(api, BATCHES) if (one := _batch(found)) is not None]
    namespaces = {it["metadata"]["name"]: it["metadata"].get("labels", {}) for it in await _all(api, NAMESPACES)}
    return Picture(tuple(batches), tuple(await bulkheads(api)), namespaces)


async def bulkheads(api: Api) -> list[Bulkhead]:
    """All Bulkheads, by name. Raises `InvalidSpec` for one of another version, `ApiError` and `TransientFailure`."""
    return [Bulkhead.parse({**_head(BULKHEADS), **found}) for found in await _all(api, BULKHEADS)]


def _batch(found: JsonObject) -> InferenceBatch | None:
    try:
        return InferenceBatch.parse({**_head(BATCHES), **found})
    except InvalidSpec:
        return None


def _head(resource: Resource) -> dict[str, str]:
    return {"apiVersion": API_VERSION, "kind": resource.kind}


async def _all(api: Api, resource: Resource) -> list[JsonObject]:
    return [found async for page in api.pages(resource) for found in page["items"]]
