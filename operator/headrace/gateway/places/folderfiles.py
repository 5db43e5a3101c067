"""Uploads in a folder: of this machine, or of a volume that several gateways have mounted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from headrace.api.gateway import UploadedFile
from headrace.gateway.places.filestore import CHUNK_BYTES
from headrace.shells.local import uploads


class FolderFiles:
    """A `FileStore`."""

    def __init__(self, files: uploads.Uploads, folder_uri: str) -> None:
        """`folder_uri`: what the folder of the files is called in batches."""
        self._files, self._folder_uri = files, folder_uri.rstrip("/")

    async def all(self) -> Sequence[UploadedFile]:
        """Read what is known of each."""
        return await asyncio.to_thread(self._files.all)

    async def find(self, file_id: str) -> UploadedFile | None:
        """Read what is known of it."""
        return await asyncio.to_thread(self._files.find, file_id)

    async def begin(self) -> FolderDraft:
        """Open a file."""
        return FolderDraft(self._files, await asyncio.to_thread(self._files.begin))

    async def delete(self, file_id: str) -> bool:
        """Remove it."""
        return await asyncio.to_thread(self._files.delete, file_id)

    async def content(self, file_id: str) -> AsyncGenerator[bytes, None]:
        """Read it piece by piece."""
        with await asyncio.to_thread(self._files.path(file_id).open, "rb") as stream:
            while piece := await asyncio.to_thread(stream.read, CHUNK_BYTES):
                yield piece

    def uri(self, file_id: str) -> str:
        """Its path below what the folder is called."""
        return f"{self._folder_uri}/{self._files.relative(file_id)}"


class FolderDraft:
    """A `Draft` on a disk, written to in pieces that are worth a thread's while."""

    def __init__(self, files: uploads.Uploads, draft: uploads.Draft) -> None:
        self._files, self._draft, self._pending = files, draft, bytearray()

    async def write(self, data: bytes) -> None:
        """Write when there is enough of it."""
        self._pending += data
        if len(self._pending) >= CHUNK_BYTES:
            await self._flush()

    async def keep(self, filename: str, purpose: str) -> UploadedFile:
        """Write the rest, and sync."""
        await self._flush()
        return await asyncio.to_thread(self._files.keep, self._draft, filename, purpose)

    async def discard(self) -> None:
        """Remove it."""
        await asyncio.to_thread(self._draft.discard)

    async def _flush(self) -> None:
        pending, self._pending = self._pending, bytearray()
        await asyncio.to_thread(self._draft.write, bytes(pending))
