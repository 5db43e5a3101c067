"""What the batches of a cluster have left, read where it lies: in object stores, and on claims that the gateway has mounted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import obstore
from pydantic import ValidationError

from headrace.api.kinds import OurObject
from headrace.api.output import MANIFEST_FILE, BatchManifest
from headrace.api.worker import BatchIdentity
from headrace.core.openai.files import PARTS
from headrace.core.openai.ids import Part
from headrace.gateway.places.buckets import address, answering, is_bucket
from headrace.shells.local.results import read_results
from headrace.shells.local.state import StateError

_OWNER = "_headrace/owner.json"


class Outputs:
    """The outputs of the batches of one namespace."""

    def __init__(self, mounted: Mapping[str, Path]) -> None:
        """`mounted`: the claims of that namespace that are mounted here, by name, each with its folder."""
        self._mounted = mounted

    async def results(self, batch: OurObject, part: Part) -> AsyncGenerator[bytes, None]:
        """Start the worker's own reader. Raises `StateError` when there is nothing that can be read, or when it is not this batch's."""
        uri = self._uri(batch)
        await self._check_owner(batch, uri)
        return await read_results(uri, PARTS[part])

    async def manifest(self, batch: OurObject) -> BatchManifest | None:
        """Its manifest; None when it has left none."""
        data = await self._read(f"{self._uri(batch)}/{MANIFEST_FILE}")
        try:
            found = BatchManifest.model_validate_json(data) if data is not None else None
        except ValidationError:
            return None
        return found if found is not None and found.batch.uid == batch.metadata.uid else None

    async def _check_owner(self, batch: OurObject, uri: str) -> None:
        """Raise `StateError` unless the batch has written there.

        Whoever may make batches chooses where their output goes, and by whose credentials: that does not open the outputs of others,
        which the gateway's own credentials would.
        """
        data = await self._read(f"{uri}/{_OWNER}")
        try:
            owner = BatchIdentity.model_validate_json(data or b"")
        except ValidationError:
            owner = None
        if owner is None or owner.uid != batch.metadata.uid:
            raise _unreadable(batch, "it is not that of this batch")

    async def _read(self, uri: str) -> bytes | None:
        """A small file; None when there is none."""
        try:
            if not is_bucket(uri):
                return await asyncio.to_thread(Path(unquote(urlsplit(uri).path)).read_bytes)
            with answering(uri):
                return bytes(await (await obstore.get_async(*address(uri))).bytes_async())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError("OutputUnreadable", f"{uri} cannot be read: {error.strerror}") from error

    def _uri(self, batch: OurObject) -> str:
        """Its output folder as this process sees it. Raises `StateError` when it does not."""
        assert batch.status.output is not None
        uri = batch.status.output.uri.rstrip("/")
        if is_bucket(uri):
            return uri
        parts = urlsplit(uri)
        folder = self._mounted.get(parts.netloc) if parts.scheme == "claim" else None
        if folder is None or ".." in unquote(parts.path).split("/"):
            raise _unreadable(batch, f"{uri} is not mounted in the gateway")
        return f"file://{quote(str(folder))}{parts.path}"


def _unreadable(batch: OurObject, why: str) -> StateError:
    name = batch.metadata.name
    return StateError(
        "OutputUnreadable", f"the output of {name} cannot be read here: {why}; headrace results {name} may"
    )
