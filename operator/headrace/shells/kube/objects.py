"""What a user may do to batches in a cluster: look, submit, change, delete. The counterpart of what the local shell does with files."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from headrace.api import labels
from headrace.api.base import FieldError, InvalidSpec, JsonObject
from headrace.api.fanoutjob import FanOutJob
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import OurObject
from headrace.api.worker import ExitCode
from headrace.core.edits import Submission, Wish, not_there, submission
from headrace.shells.kube.api import Api
from headrace.shells.kube.errors import ApiError, Conflict, NotFound, TransientFailure
from headrace.shells.kube.resources import BATCHES, CONFIG_MAPS, FAN_OUTS, JOBS, PODS, Resource, of_kind
from headrace.shells.kube.submission import as_said, field_errors
from headrace.shells.manifests import ConfigMap

FIELD_MANAGER = "headrace-cli"
GONE_SECONDS = 60.0
"""How long a batch may take to go. Nothing of ours holds one back; somebody else's finalizer may."""
_HARMLESS = (ExitCode.DONE, ExitCode.DRAINED)


class OtherVersion(Exception):
    """An object of our kind that this version does not understand."""


class Missing(Exception):
    """There is no such batch."""


def parsed(obj: JsonObject, resource: Resource = BATCHES) -> OurObject:
    """The object. Raises `OtherVersion`."""
    try:
        return (FanOutJob if resource is FAN_OUTS else InferenceBatch).parse(obj)
    except InvalidSpec as error:
        name = f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"
        raise OtherVersion(f"{name} is of another version of Headrace than this command: {error}") from error


class Objects:
    """The batches of a cluster, as one user. Everything may raise `ApiError`, `TransientFailure` and `OtherVersion`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def lookup(self, namespace: str, name: str) -> OurObject | None:
        """The batch of that name, or else the fan-out; None when there is neither."""
        for resource in (BATCHES, FAN_OUTS):
            try:
                return parsed(await self._api.get(resource, namespace, name), resource)
            except NotFound as error:
                if not error.said.get("details"):
                    raise  # there is not even such a kind
        return None

    async def find(self, namespace: str, name: str) -> OurObject:
        """The batch of that name. Raises `Missing`."""
        batch = await self.lookup(namespace, name)
        if batch is None:
            raise Missing(not_there(namespace, name))
        return batch

    async def problems(self, batch: OurObject, planned: Submission) -> list[FieldError]:
        """What the server would say to a submission, without one: its schema, its rules, and whoever else it asks."""
        namespace, body, resource = batch.metadata.namespace, as_said(batch), of_kind(batch.kind)
        try:
            if planned == Submission.STARTED_OVER:
                await self._api.create(resource, namespace, body, dry_run=True)
            else:
                await self._api.apply(resource, namespace, body, dry_run=True)
        except Conflict:
            return []  # it is there, and will be gone by then
        except ApiError as refusal:
            if refusal.status in (400, 422):
                return field_errors(refusal)
            raise
        return []

    async def submit(self, batch: OurObject, *, replace: bool) -> tuple[Submission, OurObject]:
        """Create the batch, or bring the one of that name to this spec; returns what it was right then. Raises `ImmutableFields`."""
        namespace, name, resource = batch.metadata.namespace, batch.metadata.name, of_kind(batch.kind)
        old = await self.lookup(namespace, name)
        planned = submission(old, batch, replace=replace)
        if old is not None and planned == Submission.STARTED_OVER:
            await self._api.delete(resource, namespace, name, old.metadata.uid)
            await self._wait_gone(namespace, name)
            old = None
        new = parsed(await self._api.apply(resource, namespace, as_said(batch)), resource)
        if old is not None:  # what the manifest does not speak of is as others have set it, so only the server knows
            same = old.metadata.generation == new.metadata.generation
            planned = Submission.UNCHANGED if same else Submission.CHANGED
        return planned, new

    async def edit(self, namespace: str, name: str, wish: Wish) -> None:
        """Do with a batch what somebody wants of it. Raises `EditRefused`."""
        old = await self.find(namespace, name)
        asked = wish(old)
        metadata = {"uid": old.metadata.uid, "annotations": dict(asked.annotations)}
        await self._api.patch(of_kind(old.kind), namespace, name, {"metadata": metadata, "spec": dict(asked.spec)})

    async def delete(self, namespace: str, name: str) -> OurObject:
        """Delete a batch; returns it as it was. Raises `Missing`."""
        old = await self.find(namespace, name)
        await self._api.delete(of_kind(old.kind), namespace, name, old.metadata.uid)
        return old

    async def keep(self, config_map: ConfigMap) -> None:
        """Create or replace a ConfigMap."""
        metadata = config_map.metadata
        head = {"name": metadata.name, "labels": metadata.labels, "annotations": metadata.annotations}
        await self._api.apply(CONFIG_MAPS, metadata.namespace, {**as_said(config_map), "metadata": head})

    async def pod_template(self, batch: OurObject) -> JsonObject | None:
        """The pod template of the batch's newest Job; None when none is left."""
        jobs = await self._labelled(JOBS, batch.metadata.namespace, batch.metadata.name)
        newest = max(jobs, key=lambda job: str(job["metadata"]["creationTimestamp"]), default=None)
        return dict(newest["spec"]["template"]) if newest is not None else None

    async def failed_pod(self, namespace: str, name: str) -> str | None:
        """The pod that has failed last and is still there; None when there is none, or when pods may not be looked at."""
        try:
            pods = await self._labelled(PODS, namespace, name)
        except ApiError as error:
            if error.status == 403:
                return None
            raise
        ends = [(end["finishedAt"], pod["metadata"]["name"]) for pod in pods for end in _failures(pod)]
        return max(ends)[1] if ends else None

    async def _labelled(self, resource: Resource, namespace: str, name: str) -> list[JsonObject]:
        found: list[JsonObject] = []
        async for page in self._api.pages(resource, namespace, f"{labels.INFERENCE_BATCH}={name}"):
            found += page["items"]
        async for page in self._api.pages(resource, namespace, f"{labels.FAN_OUT_JOB}={name}"):
            found += page["items"]
        return found

    async def _wait_gone(self, namespace: str, name: str) -> None:
        clock = asyncio.get_running_loop().time
        ends = clock() + GONE_SECONDS
        while await self.lookup(namespace, name) is not None:
            if clock() > ends:
                raise TransientFailure(f"{name} is being deleted, but has not gone within {GONE_SECONDS:.0f} s")
            await asyncio.sleep(0.2)


def _failures(pod: JsonObject) -> Sequence[dict[str, Any]]:
    """How the containers of a pod have ended that did not end well."""
    ends = (status.get("state", {}).get("terminated") for status in pod.get("status", {}).get("containerStatuses", ()))
    return [end for end in ends if end is not None and end["exitCode"] not in _HARMLESS]
