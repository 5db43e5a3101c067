"""A thin client: JSON in, JSON out, over the official asyncio client's connection and credentials.

Dictionaries rather than models: the core renders manifests and reads snapshots, and a model in between would only cost time and
drop what it does not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlencode

import aiohttp
import orjson
from kubernetes.aio import client

from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.shells.kube.errors import ApiError, Conflict, Gone, LeaseLost, NotFound, TransientFailure
from headrace.shells.kube.resources import Resource

REQUEST_TIMEOUT_SECONDS = 30.0
PAGE = 500
JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | list[JsonObject] | None = None
    content_type: str = JSON

    @property
    def writes(self) -> bool:
        return self.method != "GET"

    def __str__(self) -> str:
        return f"{'WATCH' if 'watch' in self.query else self.method} {self.path}"


class Api:
    """Requests to one API server. Raises `TransientFailure`, `NotFound`, `Conflict`, `Gone` and `ApiError`."""

    def __init__(
        self,
        api_client: client.ApiClient,
        timeout_seconds: float = REQUEST_TIMEOUT_SECONDS,
        may_write: Callable[[], bool] = lambda: True,
        manager: str = labels.FIELD_MANAGER,
    ) -> None:
        self._client, self._timeout_seconds, self._may_write = api_client, timeout_seconds, may_write
        self._manager = {"fieldManager": manager}
        self.writes = 0
        """Requests so far that change something."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> JsonObject:
        """One object."""
        return await self._json(_Request("GET", resource.path(namespace, name)))

    async def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        selector: str = "",
        fields: str = "",
        limit: int = PAGE,
    ) -> AsyncIterator[JsonObject]:
        """All objects, as lists of at most so many; each page is a `List` object with its `resourceVersion`.

        `selector` is of labels, `fields` of fields.
        """
        query: dict[str, str] = {"limit": str(limit), **_selected(selector, fields)}
        while True:
            page = await self._json(_Request("GET", resource.path(namespace), query))
            yield page
            token = page["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token

    async def watch(
        self, resource: Resource, namespace: str | None, selector: str, version: str, seconds: int, fields: str = ""
    ) -> AsyncIterator[JsonObject]:
        """Events since that version, bookmarks among them, until the server ends the stream, after so many seconds at the latest.

        Raises `Gone` when the version is too old.
        """
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version}
        query |= {"timeoutSeconds": str(seconds), **_selected(selector, fields)}
        request = _Request("GET", resource.path(namespace), query)
        try:
            async with asyncio.timeout(self._timeout_seconds):  # a stream may be silent for long, but is there at once
                response = await self._send(request, aiohttp.ClientTimeout(total=seconds + self._timeout_seconds))
            async with response:
                async for line in response.content:
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise _failure(event["object"].get("code", 500), event["object"], None, request)
                    yield event
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise TransientFailure(f"{request}: {str(error) or type(error).__name__}") from error

    async def create(
        self, resource: Resource, namespace: str, body: Mapping[str, Any], *, dry_run: bool = False
    ) -> JsonObject:
        """Make an object, or only ask whether it could be; `Conflict` when there is one of that name."""
        query = {**self._manager, **(_DRY_RUN if dry_run else {})}
        return await self._json(_Request("POST", resource.path(namespace), query, body))

    async def apply(
        self, resource: Resource, namespace: str, body: Mapping[str, Any], *, dry_run: bool = False
    ) -> JsonObject:
        """Server-side apply: what the body says there shall be, whoever said otherwise. Fields that are not known there are refused."""
        query = {**self._manager, "force": "true", "fieldValidation": "Strict", **(_DRY_RUN if dry_run else {})}
        return await self._json(
            _Request("PATCH", resource.path(namespace, body["metadata"]["name"]), query, body, APPLY)
        )

    async def replace(self, resource: Resource, namespace: str, body: Mapping[str, Any]) -> JsonObject:
        """Write a whole object; `Conflict` when its `resourceVersion` is no longer that of `body`."""
        return await self._json(
            _Request("PUT", resource.path(namespace, body["metadata"]["name"]), self._manager, body)
        )

    async def replace_status(self, resource: Resource, metadata: Mapping[str, str], status: JsonObject) -> JsonObject:
        """Write a whole status to the object of that namespace, name and uid; `Conflict` when it has another uid."""
        path = resource.path(metadata["namespace"], metadata["name"], "status")
        whole: list[JsonObject] = [
            {"op": "add", "path": "/metadata/uid", "value": metadata["uid"]},
            {"op": "add", "path": "/status", "value": status},
        ]
        return await self._json(_Request("PATCH", path, self._manager, whole, JSON_PATCH))

    async def patch(self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any]) -> JsonObject:
        """JSON merge patch; a `metadata.uid` in it is a precondition."""
        return await self._json(_Request("PATCH", resource.path(namespace, name), self._manager, body, MERGE))

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str | None) -> None:
        """Delete this very object and its dependants; one that is gone, or another of that name, is left in peace.

        Without a uid it is whichever has the name.
        """
        options = {"propagationPolicy": "Background", **({"preconditions": {"uid": uid}} if uid is not None else {})}
        try:
            await self._json(_Request("DELETE", resource.path(namespace, name), body=options))
        except (NotFound, Conflict):
            return

    async def _json(self, request: _Request) -> JsonObject:
        if request.writes and not self._may_write():
            raise LeaseLost(f"{request}: not sent, for another replica may act")
        self.writes += request.writes
        try:
            async with asyncio.timeout(self._timeout_seconds):
                response = await self._send(request)
                return cast("JsonObject", orjson.loads(await response.read()))
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise TransientFailure(f"{request}: {str(error) or type(error).__name__}") from error

    async def _send(self, request: _Request, timeout: aiohttp.ClientTimeout | None = None) -> aiohttp.ClientResponse:
        """The response with its body unread, once it is known to be a good one."""
        url = request.path + (f"?{urlencode(request.query)}" if request.query else "")
        headers = {"Accept": JSON, "Content-Type": request.content_type}
        call = await self._client.param_serialize(
            method=request.method, resource_path=url, header_params=headers, auth_settings=["BearerToken"]
        )
        rest = self._client.rest_client
        answer = await rest.request(*call[:2], headers=call[2], body=request.body, _request_timeout=timeout)
        response: aiohttp.ClientResponse = answer.response
        if response.status < 400:
            return response
        data = await response.read()
        raise _failure(response.status, _status(data), response.headers.get("Retry-After"), request)


_DRY_RUN = {"dryRun": "All"}
_CONFLICTS = ("AlreadyExists", "Conflict", "Invalid")


def _selected(selector: str, fields: str) -> dict[str, str]:
    return {name: text for name, text in (("labelSelector", selector), ("fieldSelector", fields)) if text}


def _status(data: bytes) -> JsonObject:
    """The `Status` object of a refusal; whatever stands before the API server may answer in other words."""
    try:
        said = orjson.loads(data)
    except orjson.JSONDecodeError:
        said = None
    return said if isinstance(said, dict) else {"message": data[:200].decode(errors="replace")}


def _failure(status: int, said: JsonObject, retry_after: str | None, request: _Request) -> Exception:
    message = f"{request}: {said.get('message', '')}"
    if status == 409 and said.get("reason") not in _CONFLICTS:
        return TransientFailure(message)
    if status in (408, 429) or status >= 500:
        wait = float(retry_after) if retry_after and retry_after.isdecimal() else None
        return TransientFailure(f"HTTP {status}: {message}", wait)
    return _REFUSALS.get(status, ApiError)(status, message, said)


_REFUSALS: Mapping[int, type[ApiError]] = {404: NotFound, 409: Conflict, 410: Gone}
