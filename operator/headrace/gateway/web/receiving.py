"""Taking in an upload: the file of a form goes to where files are, piece by piece, as it comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.requests import Request

from headrace.api.gateway import UploadedFile
from headrace.core.openai.errors import bad_request
from headrace.core.openai.files import check_purpose
from headrace.gateway.places.place import Draft, Place
from headrace.gateway.web.bodies import check_announced, pieces, too_large
from headrace.gateway.web.multipart import Begin, End, Event, Form

_FIELD_BYTES = 1024
_FORM_BYTES = 64 * 1024
"""What a form may have around its file."""


async def receive(
    request: Request, place: Place, most_bytes: int, patience_seconds: float, took: Callable[[int], None]
) -> UploadedFile:
    """The file that a client uploads; of one that is cut off, or refused, nothing is left. Raises `ApiError`.

    `took` is told of all that is written, and may refuse it.
    """
    check_announced(request, most_bytes + _FORM_BYTES)
    form, upload = Form(request.headers.get("content-type", "")), _Upload(place, most_bytes, took)
    try:
        async for piece in pieces(request, patience_seconds):
            for event in form.feed(piece):
                await upload.take(event)
        form.close()
        return await upload.keep()
    finally:
        await upload.close()


@dataclass
class _Upload:
    """What has come of a form so far."""

    place: Place
    most_bytes: int
    took: Callable[[int], None]
    draft: Draft | None = None
    filename: str = ""
    size: int = 0
    fields: dict[str, bytearray] = field(default_factory=dict)
    part: str = ""
    """Name of the part that has begun."""

    async def take(self, event: Event) -> None:
        """Take in what comes next."""
        if isinstance(event, Begin):
            await self._begin(event)
        elif isinstance(event, End):
            if self.part == "purpose":
                self._purpose()  # before a gigabyte follows that nobody wants
        elif self.part == "file":
            await self._write(event)
        else:
            self._collect(event)

    async def keep(self) -> UploadedFile:
        """The file, once the form is whole."""
        purpose = self._purpose()
        if self.draft is None:
            raise bad_request("file must be a part of the form, with a filename", "file", "missing_required_parameter")
        kept = await self.draft.keep(self.filename, purpose)
        self.draft = None
        return kept

    async def close(self) -> None:
        """Leave nothing of what was not kept."""
        if self.draft is not None:
            await self.draft.discard()

    async def _begin(self, part: Begin) -> None:
        if part.name not in ("file", "purpose"):
            raise bad_request(f"{part.name[:80]} is not known here", part.name[:80], "unknown_parameter")
        if part.name in self.fields or (part.name == "file" and self.draft is not None):
            raise bad_request(f"{part.name} must be there once", part.name, "invalid_value")
        self.part = part.name
        if part.name == "purpose":
            self.fields[part.name] = bytearray()
        elif not part.filename:
            raise bad_request("file must have a filename", "file", "invalid_value")
        else:
            self.filename, self.draft = _shown(part.filename), await self.place.begin_upload()

    async def _write(self, data: bytes) -> None:
        assert self.draft is not None
        self.size += len(data)
        if self.size > self.most_bytes:
            raise too_large(self.most_bytes)
        self.took(len(data))
        await self.draft.write(data)

    def _collect(self, data: bytes) -> None:
        value = self.fields[self.part]
        value += data
        if len(value) > _FIELD_BYTES:
            raise bad_request(f"{self.part} has more than {_FIELD_BYTES} bytes", self.part, "invalid_value")

    def _purpose(self) -> str:
        given = self.fields.get("purpose")
        return check_purpose(given.decode(errors="replace") if given is not None else None)


def _shown(filename: str) -> str:
    """The name of a file without folders, and without what could steer a terminal."""
    name = filename.replace("\\", "/").rpartition("/")[2]
    return "".join(char if char.isprintable() else "_" for char in name)[:255] or "file"
