"""One machine as a place for each namespace: objects and files below the state folder, and this process to run batches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from pydantic import ValidationError

from headrace.api import labels
from headrace.api.gateway import ServedModels
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import OurObject
from headrace.api.output import BatchManifest
from headrace.core import edits
from headrace.core.asking.batches import made_of_requests
from headrace.core.openai.batches import newest_first, stands_alone
from headrace.core.openai.errors import conflict, no_input, no_such
from headrace.core.openai.files import PARTS
from headrace.core.openai.ids import Part, batch_id
from headrace.core.openai.request import check_deletable, made_by_request, same_request
from headrace.gateway.places.filed import Filed
from headrace.gateway.places.folderfiles import FolderFiles
from headrace.shells.local import objects
from headrace.shells.local.converge import utc_now
from headrace.shells.local.results import read_results
from headrace.shells.local.runs import Runs
from headrace.shells.local.state import StateDir, StateError
from headrace.shells.local.uploads import Uploads

logger = logging.getLogger(__name__)

_UPLOADS = "uploads"
_KEPT = ("batches", _UPLOADS)
"""Folders with one for each namespace."""


class Heres:
    """`Places`. `Runs` sees to the batches of all of them."""

    def __init__(self, state: StateDir, models: ServedModels, runs: Runs) -> None:
        self.models = models
        self._state, self._runs = state, runs
        self._known: dict[str, Here] = {}

    def of(self, namespace: str) -> Here:
        """The same each time: what holds deletions and new batches apart is in it."""
        if namespace not in self._known:
            self._known[namespace] = Here(self._state, namespace, self.models, self._runs)
        return self._known[namespace]

    def take_over(self) -> None:
        """Go on with what an earlier process has left, in whatever namespace."""
        for namespace in sorted({folder.name for kept in _KEPT for folder in (self._state.root / kept).glob("*/")}):
            self.of(namespace).take_over()


class Here(Filed):
    """A `Place`. `Runs` sees to the batches that it makes."""

    def __init__(self, state: StateDir, namespace: str, models: ServedModels, runs: Runs) -> None:
        self.models, self.namespace = models, namespace
        self._state, self._runs = state, runs
        folder = state.root / _UPLOADS / namespace
        self._uploads = Uploads(folder, utc_now)
        super().__init__(FolderFiles(self._uploads, f"file://{quote(str(folder.absolute()))}"))
        self._referring = asyncio.Lock()
        """Held while a batch comes to refer to a file, or a file goes to which none does."""

    def take_over(self) -> None:
        """Go on with what an earlier process has left."""
        self._uploads.clean()
        for work in self._all():
            is_ours = made_of_requests(work) or (isinstance(work, InferenceBatch) and made_by_request(work))
            if is_ours and (not work.status.finished or work.retry_asked):
                self._runs.take_up(work)

    async def batches(self) -> Sequence[InferenceBatch]:
        """Read them all."""
        return newest_first(await asyncio.to_thread(self._batches))

    async def find_batch(self, name: str) -> InferenceBatch | None:
        """Read it."""
        return await asyncio.to_thread(self._find_batch, name)

    async def find_work(self, name: str) -> OurObject | None:
        """Read it."""
        return await asyncio.to_thread(self._find, name)

    async def create_batch(self, batch: InferenceBatch) -> InferenceBatch:
        """Write it, and let it wait for its turn."""
        async with self._referring:
            return await asyncio.to_thread(self._create, batch)

    async def create_window(self, work: OurObject) -> None:
        """Write it, unless it is there, and let it wait for its turn."""
        await asyncio.to_thread(self._create_window, work)

    async def cancel_batch(self, name: str) -> InferenceBatch:
        """Write the wish, and see to it."""
        if await self.find_batch(name) is None:
            raise no_such("Batch", batch_id(name))
        cancelled = await self.cancel_work(name)
        assert isinstance(cancelled, InferenceBatch)
        return cancelled

    async def cancel_work(self, name: str) -> OurObject:
        """Write the wish, and see to it."""
        return await asyncio.to_thread(self._cancel, name)

    async def results(self, batch: OurObject, part: Part) -> AsyncGenerator[bytes, None]:
        """Start the worker's own reader, for it knows all stores."""
        assert batch.status.output is not None
        return await read_results(batch.status.output.uri, PARTS[part])

    async def manifest(self, batch: InferenceBatch) -> BatchManifest | None:
        """Read it, where it is on this machine."""
        return await asyncio.to_thread(_manifest, batch)

    async def delete_upload(self, file_id: str) -> None:
        """Delete it, while no batch can come to refer to it."""
        async with self._referring:
            await asyncio.to_thread(self._delete, file_id)

    def _batches(self) -> list[InferenceBatch]:
        return [work for work in self._all() if isinstance(work, InferenceBatch)]

    def _all(self) -> list[OurObject]:
        found = (self._find_sound(folder.name) for folder in self._state.batches(self.namespace))
        return [work for work in found if work is not None]

    def _find_sound(self, name: str) -> OurObject | None:
        """The same for a list, which one whose files are damaged does not keep from the others."""
        try:
            return self._find(name)
        except StateError as error:
            logger.warning("left out of lists: %s", error.message)
            return None

    def _find_batch(self, name: str) -> InferenceBatch | None:
        found = self._find(name)
        return found if isinstance(found, InferenceBatch) else None

    def _find(self, name: str) -> OurObject | None:
        """What has that name; None also for what goes while it is read, and for the branch of a fan-out."""
        try:
            found = self._state.batch(self.namespace, name).load()
        except StateError as error:
            if error.reason == "NotFound":
                return None
            raise
        return found if stands_alone(found) else None

    def _create(self, batch: InferenceBatch) -> InferenceBatch:
        name, file_id = batch.metadata.name, batch.metadata.annotations[labels.OPENAI_INPUT_FILE]
        known = self._find_batch(name)
        if known is not None:
            return same_request(known, batch)
        if self._uploads.find(file_id) is None:  # it has gone since it was looked at
            raise no_input(file_id)
        try:
            objects.submit(self._state, batch, utc_now(), replace=False)
        except edits.EditRefused as error:  # an object of another kind has that name
            raise conflict(error.message) from error
        created = self._state.batch(self.namespace, name).load_batch()
        self._runs.take_up(created)
        return created

    def _create_window(self, work: OurObject) -> None:
        name = work.metadata.name
        known = self._find(name)
        if known is None:
            objects.submit(self._state, work, utc_now(), replace=False)
            known = self._state.batch(self.namespace, name).load()
        if not known.status.finished:
            self._runs.take_up(known)

    def _cancel(self, name: str) -> OurObject:
        folder = self._state.batch(self.namespace, name)
        try:
            objects.edit(self._state, folder, edits.cancel)
        except edits.EditRefused as error:
            raise conflict(error.message, "id", "already_finished") from error
        work = folder.load()
        self._runs.take_up(work)  # by whichever door it came: maybe no other process is there to end it
        return work

    def _delete(self, file_id: str) -> None:
        check_deletable(file_id, [it for it in self._batches() if not it.status.finished])
        if not self._uploads.delete(file_id):
            raise no_such("File", file_id)


def _manifest(batch: InferenceBatch) -> BatchManifest | None:
    """The manifest of what it has left; None when it is not on this machine, or there is none."""
    output = batch.status.output
    parts = urlsplit(output.manifest if output is not None and output.manifest is not None else "")
    try:
        return (
            BatchManifest.model_validate_json(Path(unquote(parts.path)).read_bytes())
            if parts.scheme == "file"
            else None
        )
    except (FileNotFoundError, ValidationError):
        return None
