"""The port between uploads and what keeps them: a folder, or a part of a bucket."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from headrace.api.gateway import UploadedFile
from headrace.api.records import MAX_RECORD_BYTES
from headrace.gateway.places.place import Draft
from headrace.shells.local.state import StateError

CHUNK_BYTES = 256 * 1024
ABANDONED_SECONDS = 86_400
"""After which an upload that was never finished is rubbish, where several gateways share what keeps them: no upload takes so long."""


class FileStore(Protocol):
    """The uploaded files of one namespace. Ids are those of uploads."""

    async def all(self) -> Sequence[UploadedFile]:
        """All files, the newest first."""

    async def find(self, file_id: str) -> UploadedFile | None:
        """The file of that id; None when there is none."""

    async def begin(self) -> Draft:
        """A new upload."""

    async def delete(self, file_id: str) -> bool:
        """Delete a file; says whether it was there."""

    def content(self, file_id: str) -> AsyncGenerator[bytes, None]:
        """Its content, as a stream to be closed. Raises `FileNotFoundError` at the first piece when it is gone."""

    def uri(self, file_id: str) -> str:
        """Where its content is, as a batch is told."""


class NoFiles:
    """A `FileStore` of a namespace that has no place for any: batches by other doors, and single requests, need none."""

    def __init__(self, message: str) -> None:
        self.error = StateError("NoFiles", message)

    async def all(self) -> Sequence[UploadedFile]:
        """There are none."""
        return ()

    async def find(self, _: str) -> UploadedFile | None:
        """It is not here."""
        return None

    async def begin(self) -> Draft:
        """Refuse it."""
        raise self.error

    async def delete(self, _: str) -> bool:
        """It was not here."""
        return False

    async def content(self, file_id: str) -> AsyncGenerator[bytes, None]:
        """It is not here."""
        raise FileNotFoundError(file_id)
        yield b""

    def uri(self, _: str) -> str:
        """It has none."""
        raise self.error


async def first_line(pieces: AsyncGenerator[bytes, None]) -> bytes:
    """The first line that is not blank, or as much of it as shows that it is too long; empty when there is none.

    A byte order mark is no part of it: those who read the whole file leave it out too.
    """
    left = b""
    async for piece in pieces:
        *lines, left = (left + piece).split(b"\n")
        for line in (whole.removeprefix(BOM_UTF8) for whole in lines):
            if line.strip():
                return line
        if len(left) > MAX_RECORD_BYTES:
            break
    left = left.removeprefix(BOM_UTF8)
    return left if left.strip() else b""
