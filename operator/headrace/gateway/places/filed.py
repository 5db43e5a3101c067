"""What a place of either kind answers about uploads and the sizes of results: as its store of files and its manifests do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from headrace.api.gateway import UploadedFile
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import OurObject
from headrace.api.output import BatchManifest
from headrace.core.openai.errors import no_input
from headrace.core.openai.files import manifest_bytes
from headrace.core.openai.ids import Part
from headrace.gateway.places.filestore import FileStore, first_line
from headrace.gateway.places.place import Draft


class Filed(ABC):
    """That part of a `Place`."""

    def __init__(self, files: FileStore) -> None:
        self._files = files
        self._sizes: dict[tuple[str, int, Part], int] = {}
        """By uid and round of a batch that is over: counting them may mean reading them."""

    @abstractmethod
    async def results(self, batch: OurObject, part: Part) -> AsyncGenerator[bytes, None]:
        """The file with its results or errors, as a stream to be closed."""

    @abstractmethod
    async def manifest(self, batch: InferenceBatch) -> BatchManifest | None:
        """What a batch says about its output; None when that cannot be read here, or there is none."""

    async def size(self, batch: InferenceBatch, part: Part) -> int:
        """From its manifest; where that cannot be read, by reading the file once."""
        key = (batch.metadata.uid, batch.status.retries, part)
        if key not in self._sizes:
            manifest = await self.manifest(batch)
            if manifest is not None:
                self._sizes[key] = manifest_bytes(manifest, part)
            else:
                async with aclosing(await self.results(batch, part)) as pieces:
                    self._sizes[key] = sum([len(piece) async for piece in pieces])
        return self._sizes[key]

    async def uploads(self) -> Sequence[UploadedFile]:
        """Those of the namespace."""
        return await self._files.all()

    async def find_upload(self, file_id: str) -> UploadedFile | None:
        """Look for it."""
        return await self._files.find(file_id)

    async def begin_upload(self) -> Draft:
        """Begin it."""
        return await self._files.begin()

    def content(self, file: UploadedFile) -> AsyncGenerator[bytes, None]:
        """Read it."""
        return self._files.content(file.id)

    async def first_line(self, file: UploadedFile) -> bytes:
        """Read as far as it takes."""
        try:
            async with aclosing(self._files.content(file.id)) as pieces:
                return await first_line(pieces)
        except FileNotFoundError as error:
            raise no_input(file.id) from error

    def uri(self, file_id: str) -> str:
        """As a batch is told."""
        return self._files.uri(file_id)
