"""A cluster as a place for each namespace: its API server keeps the batches, and a store of files keeps the files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Never

from headrace.api.base import JsonObject
from headrace.api.fanoutjob import FanOutJob
from headrace.api.gateway import ServedModels
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import OurObject
from headrace.api.output import BatchManifest
from headrace.core import edits
from headrace.core.openai.batches import newest_first, stands_alone
from headrace.core.openai.errors import ApiError, bad_request, conflict, no_such
from headrace.core.openai.ids import Part, batch_id
from headrace.core.openai.request import check_deletable, same_request
from headrace.gateway.places.filed import Filed
from headrace.gateway.places.filestore import FileStore
from headrace.gateway.places.outputs import Outputs
from headrace.gateway.places.place import PlaceAway
from headrace.shells.kube import errors
from headrace.shells.kube.api import Api
from headrace.shells.kube.resources import BATCHES, FAN_OUTS
from headrace.shells.kube.workwatch import WorkWatch
from headrace.shells.local.state import StateError

FIELD_MANAGER = "headrace-gateway"
_REFUSALS = (400, 422)
"""Of an object that would be refused again."""
_TRIES = 3
_REST_SECONDS = 0.5


class There(Filed):
    """A `Place`: one namespace."""

    def __init__(self, namespace: str, api: Api, models: ServedModels, files: FileStore, outputs: Outputs) -> None:
        super().__init__(files)
        self.namespace, self.models = namespace, models
        self._api, self._outputs = api, outputs
        self._batches, self._fan_outs = (WorkWatch(api, resource, namespace) for resource in (BATCHES, FAN_OUTS))

    async def watch(self) -> Never:
        """Hear of what becomes of batches and fan-outs, until cancelled."""
        await asyncio.gather(self._batches.run(), self._fan_outs.run())
        raise AssertionError("a watch has no end")

    async def batches(self) -> Sequence[InferenceBatch]:
        """All that were told of; when there are no news, all are asked for."""
        if not self._batches.is_live:
            with _asked():
                await self._batches.refresh()
        found = self._batches.all()
        return newest_first([it for it in found if isinstance(it, InferenceBatch) and stands_alone(it)])

    async def find_batch(self, name: str) -> InferenceBatch | None:
        """As it was told of last. One that is not known is asked for: another gateway may just have made it."""
        found = _told(self._batches, name) or await self._ask(self._batches, name)
        return found if isinstance(found, InferenceBatch) and stands_alone(found) else None

    async def find_work(self, name: str) -> OurObject | None:
        """The same; a window has become either."""
        found = (
            _told(self._batches, name)
            or _told(self._fan_outs, name)
            or await self._ask(self._batches, name)
            or await self._ask(self._fan_outs, name)
        )
        return found if found is not None and stands_alone(found) else None

    async def create_batch(self, batch: InferenceBatch) -> InferenceBatch:
        """Create it; when nobody knows whether that was done, again, under the same name."""
        made = await self._create(batch)
        if isinstance(made, InferenceBatch):
            return made
        with _asked():
            found = InferenceBatch.parse(await self._api.get(BATCHES, self.namespace, batch.metadata.name))
        return same_request(found, batch)

    async def create_window(self, work: OurObject) -> None:
        """Create it; one of that name is this very one."""
        await self._create(work)

    async def cancel_batch(self, name: str) -> InferenceBatch:
        """Patch it, unless it is over."""
        found = await self._ask(self._batches, name)
        if not isinstance(found, InferenceBatch) or not stands_alone(found):
            raise no_such("Batch", batch_id(name))
        cancelled = await self._cancel(found)
        assert isinstance(cancelled, InferenceBatch)
        return cancelled

    async def cancel_work(self, name: str) -> OurObject:
        """The same."""
        found = await self.find_work(name)
        if found is None:
            raise no_such("Batch", batch_id(name))
        return await self._cancel(found)

    async def results(self, batch: OurObject, part: Part) -> AsyncGenerator[bytes, None]:
        """Where they lie."""
        return await self._outputs.results(batch, part)

    async def manifest(self, batch: InferenceBatch) -> BatchManifest | None:
        """Where it lies."""
        return await self._outputs.manifest(batch)

    async def delete_upload(self, file_id: str) -> None:
        """Delete it, unless a batch that is known reads it."""
        check_deletable(file_id, [it for it in await self.batches() if not it.status.finished])
        if not await self._files.delete(file_id):
            raise no_such("File", file_id)

    async def _ask(self, watch: WorkWatch, name: str) -> OurObject | None:
        """The object as it is now; None when there is none."""
        try:
            with _asked():
                return _taken_in(watch, await self._api.get(watch.resource, self.namespace, name))
        except errors.NotFound as error:
            if not error.said.get("details"):
                message = f"the cluster does not know {watch.resource.plural}: install the chart"
                raise StateError("NotInstalled", message) from error
            return None

    async def _create(self, work: OurObject) -> OurObject | None:
        """The object that was made; None when there is one of that name. Raises `ApiError` when it would be refused again."""
        watch = self._watch_of(work)
        for tries in range(1, _TRIES + 1):
            try:
                with _asked():
                    return _taken_in(watch, await self._api.create(watch.resource, self.namespace, _body(work)))
            except errors.Conflict:
                return None
            except errors.NotFound as error:
                raise StateError("NoNamespace", error.message) from error
            except PlaceAway as error:
                if tries == _TRIES or error.retry_after is not None:
                    raise
                await asyncio.sleep(_REST_SECONDS)
        raise AssertionError("the last try has raised")

    async def _cancel(self, found: OurObject) -> OurObject:
        watch = self._watch_of(found)
        try:
            wish = edits.cancel(found)
        except edits.EditRefused as error:
            raise conflict(error.message, "id", "already_finished") from error
        body = {"metadata": {"uid": found.metadata.uid}, "spec": dict(wish.spec)}
        with _asked():
            return _taken_in(watch, await self._api.patch(watch.resource, self.namespace, found.metadata.name, body))

    def _watch_of(self, work: OurObject) -> WorkWatch:
        return self._fan_outs if isinstance(work, FanOutJob) else self._batches


def _told(watch: WorkWatch, name: str) -> OurObject | None:
    return watch.find(name) if watch.is_live else None


def _taken_in(watch: WorkWatch, obj: JsonObject) -> OurObject:
    found = watch.put(obj)
    if found is None:
        message = f"{obj['metadata']['name']} is of another version of Headrace than this gateway"
        raise StateError("OtherVersion", message)
    return found


@contextmanager
def _asked() -> Iterator[None]:
    """What the API server says, in the gateway's words. `NotFound` and `Conflict` are for who asks."""
    try:
        yield
    except errors.TransientFailure as error:
        raise PlaceAway(f"the API server does not answer: {error}", error.retry_after) from error
    except (errors.NotFound, errors.Conflict):
        raise
    except errors.ApiError as error:
        if error.status in _REFUSALS:
            raise bad_request(error.said.get("message") or error.message) from error
        if error.status == 403:
            raise ApiError(403, error.said.get("message") or error.message, None, "forbidden") from error
        raise StateError("Refused", str(error)) from error


def _body(work: OurObject) -> dict[str, Any]:
    """As it is sent: what is not said is left to the server's defaults."""
    said = work.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {"apiVersion": BATCHES.api_version, "kind": work.kind, **said}
