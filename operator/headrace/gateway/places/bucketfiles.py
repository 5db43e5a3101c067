"""Uploads in an object store: `<id>/content.jsonl`, and `<id>/file.json` beside it once it is whole.

An object appears whole or not at all, so an upload that is cut off leaves nothing but parts, which the client gives back; those of a
gateway that was killed go by the bucket's own rule for unfinished uploads.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import datetime

import obstore
from cachetools import LRUCache
from pydantic import ValidationError

from headrace.api.gateway import UploadedFile
from headrace.core.openai.ids import is_uploaded
from headrace.gateway.places.buckets import Address, address, answering, joined
from headrace.gateway.places.filestore import CHUNK_BYTES
from headrace.gateway.together import together
from headrace.shells.local.state import StateError

PART_BYTES = 8 * 1024 * 1024
_CONTENT, _ABOUT = "content.jsonl", "file.json"
_REMEMBERED = 10_000


class BucketFiles:
    """A `FileStore`."""

    def __init__(self, folder_uri: str, clock: Callable[[], datetime]) -> None:
        """Raises `StateError` when that is no URI of an object store."""
        self._uri, self._clock = folder_uri, clock
        self._folder = address(folder_uri)
        self._remembered: LRUCache[str, UploadedFile] = LRUCache(_REMEMBERED)
        """What a file is called never changes; whether it is there is asked each time."""

    async def all(self) -> Sequence[UploadedFile]:
        """List them, and read of each what is not known yet."""
        found: list[str] = []
        with answering(self._uri):
            async for some in obstore.list(self._folder.bucket, self._folder.key or None, chunk_size=1000):
                paths = (one["path"].removeprefix(self._folder.key).lstrip("/").split("/") for one in some)
                found += [path[0] for path in paths if path[1:] == [_ABOUT] and is_uploaded(path[0])]
        files = await together(self._about(file_id) for file_id in found)
        return sorted(filter(None, files), key=lambda file: (-file.created_at, file.id))

    async def find(self, file_id: str) -> UploadedFile | None:
        """Read what is known of it."""
        self._remembered.pop(file_id, None)
        return await self._about(file_id)

    async def begin(self) -> BucketDraft:
        """A new upload, under a new id; the store hears of it when there is enough."""
        file_id = f"file-{secrets.token_hex(12)}"
        return BucketDraft(file_id, self._folder.below(file_id), self.uri(file_id), self._clock)

    async def delete(self, file_id: str) -> bool:
        """Its record goes first: half a file is none."""
        if await self.find(file_id) is None:
            return False
        self._remembered.pop(file_id, None)
        for part in (_ABOUT, _CONTENT):
            with suppress(FileNotFoundError), answering(self.uri(file_id)):
                await obstore.delete_async(*self._folder.below(file_id, part))
        return True

    async def content(self, file_id: str) -> AsyncGenerator[bytes, None]:
        """Read it as it comes."""
        with answering(self.uri(file_id)):
            found = await obstore.get_async(*self._folder.below(file_id, _CONTENT))
            async for piece in found.stream(CHUNK_BYTES):
                yield bytes(piece)

    def uri(self, file_id: str) -> str:
        """Its own."""
        return joined(self._uri, file_id, _CONTENT)

    async def _about(self, file_id: str) -> UploadedFile | None:
        if file_id not in self._remembered:
            with answering(self.uri(file_id)):
                try:
                    data = await (await obstore.get_async(*self._folder.below(file_id, _ABOUT))).bytes_async()
                except FileNotFoundError:
                    return None
            try:
                self._remembered[file_id] = UploadedFile.model_validate_json(bytes(data))
            except ValidationError as error:
                why = error.errors()[0]["msg"]
                raise StateError("StateDamaged", f"{joined(self._uri, file_id, _ABOUT)}: {why}") from error
        return self._remembered[file_id]


class _GivenUp(Exception):
    """Tells an upload that its writer wants no end of it."""


class BucketDraft:
    """A `Draft`: what fits into one part is one request at the end, and of more the parts go up while the next one comes."""

    def __init__(self, file_id: str, folder: Address, uri: str, clock: Callable[[], datetime]) -> None:
        self._id, self._folder, self._uri, self._clock = file_id, folder, uri, clock
        self._pending, self._bytes = bytearray(), 0
        self._parts: asyncio.Queue[bytes | _GivenUp | None] = asyncio.Queue(1)
        self._upload: asyncio.Task[None] | None = None

    async def write(self, data: bytes) -> None:
        """Hand over what is enough for a part; waits while another is on its way."""
        self._pending += data
        self._bytes += len(data)
        while len(self._pending) > PART_BYTES:
            await self._hand_over(bytes(self._pending[:PART_BYTES]))
            del self._pending[:PART_BYTES]

    async def keep(self, filename: str, purpose: str) -> UploadedFile:
        """Let the content appear, and then what is known of it."""
        if self._upload is None:
            await self._put(_CONTENT, bytes(self._pending))
        else:
            await self._hand_over(bytes(self._pending))
            await self._hand_over(None)
            await self._upload
        now = int(self._clock().timestamp())
        file = UploadedFile(id=self._id, bytes=self._bytes, created_at=now, filename=filename, purpose=purpose)
        await self._put(_ABOUT, file.model_dump_json().encode())
        return file

    async def discard(self) -> None:
        """Have the parts given back."""
        upload, self._upload = self._upload, None
        if upload is not None:
            while self._parts.full():
                self._parts.get_nowait()
            self._parts.put_nowait(_GivenUp())
            await asyncio.gather(upload, return_exceptions=True)  # it fails, for it was told to

    async def _hand_over(self, part: bytes | None) -> None:
        """Give it to the upload. Raises what that has failed of."""
        if self._upload is None:
            self._upload = asyncio.create_task(self._send())
        handing = asyncio.create_task(self._parts.put(part))
        try:
            await asyncio.wait([handing, self._upload], return_when=asyncio.FIRST_COMPLETED)
            if not handing.done():
                await self._upload
        finally:
            handing.cancel()

    async def _send(self) -> None:
        with answering(self._uri):
            bucket, key = self._folder.below(_CONTENT)
            await obstore.put_async(
                bucket, key, self._pull(), use_multipart=True, chunk_size=PART_BYTES, max_concurrency=2
            )

    async def _pull(self) -> AsyncIterator[bytes]:
        while (part := await self._parts.get()) is not None:
            if isinstance(part, _GivenUp):
                raise part
            yield part

    async def _put(self, name: str, data: bytes) -> None:
        bucket, key = self._folder.below(name)
        with answering(self._uri):
            await obstore.put_async(bucket, key, data, use_multipart=False)
