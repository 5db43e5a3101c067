"""The port between the requests of clients and the place where batches and files are."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from headrace.api.gateway import ServedModels, UploadedFile
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import OurObject
from headrace.core.openai.ids import Part


class PlaceAway(Exception):
    """The place cannot be reached, or does not answer. Nobody knows whether what was asked was done."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        """`retry_after`: seconds that it asks to be left alone for; None when it has not said."""
        self.retry_after = retry_after
        super().__init__(message)


class Draft(Protocol):
    """An upload that is under way."""

    async def write(self, data: bytes) -> None:
        """Add to it. Raises `OSError` when there is no room."""

    async def keep(self, filename: str, purpose: str) -> UploadedFile:
        """Make it a file, durably: once this returns it is not lost any more."""

    async def discard(self) -> None:
        """Leave nothing of it."""


class ResultsPlace(Protocol):
    """What there must be to read what batches have left."""

    async def find_work(self, name: str) -> OurObject | None:
        """The batch or the fan-out of that name; None when there is none."""

    async def results(self, batch: OurObject, part: Part) -> AsyncGenerator[bytes, None]:
        """The file with its results or errors, as a stream to be closed. Raises before the first piece when nothing can be read."""


class WindowsPlace(ResultsPlace, Protocol):
    """What there must be to make batches of requests that have gathered."""

    namespace: str

    async def create_window(self, work: OurObject) -> None:
        """Create such a batch or fan-out, durably, unless it is there. Raises `ApiError` when it would be refused again."""


class RequestsPlace(ResultsPlace, Protocol):
    """What there must be to take requests, and to give up on them."""

    models: ServedModels

    async def cancel_work(self, name: str) -> OurObject:
        """End a batch or a fan-out, and keep what is done."""


class Place(WindowsPlace, RequestsPlace, Protocol):
    """Where batches and files are. What it refuses it raises as an `ApiError`; all methods may raise `PlaceAway`."""

    async def batches(self) -> Sequence[InferenceBatch]:
        """All batches that somebody has asked for, by whichever door, the newest first."""

    async def find_batch(self, name: str) -> InferenceBatch | None:
        """The batch of that name; None when there is none."""

    async def cancel_batch(self, name: str) -> InferenceBatch:
        """End a batch, and keep what is done."""

    async def create_batch(self, batch: InferenceBatch) -> InferenceBatch:
        """Create it, durably; the one of that name that is there already when it was asked for in the same words."""

    async def size(self, batch: InferenceBatch, part: Part) -> int:
        """Bytes of that file. Raises `StateError` when it is not there any more."""

    async def uploads(self) -> Sequence[UploadedFile]:
        """All uploaded files, the newest first."""

    async def find_upload(self, file_id: str) -> UploadedFile | None:
        """The uploaded file of that id; None when there is none."""

    async def begin_upload(self) -> Draft:
        """A new upload."""

    async def delete_upload(self, file_id: str) -> None:
        """Delete an uploaded file that no unfinished batch reads."""

    def content(self, file: UploadedFile) -> AsyncGenerator[bytes, None]:
        """Its content, as a stream to be closed."""

    async def first_line(self, file: UploadedFile) -> bytes:
        """Its first line that is not blank; empty when there is none."""

    def uri(self, file_id: str) -> str:
        """Where its content is, for the input of a batch."""


class Places(Protocol):
    """The places of all tenants."""

    models: ServedModels
    """What is served: to all of them the same."""

    def of(self, namespace: str) -> Place:
        """The place of the tenant who has that namespace, with nothing of any other's in it."""
