"""`/v1/files`: what was uploaded, and what batches have left."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from headrace.api.base import JsonObject
from headrace.api.gateway import UploadedFile
from headrace.api.inferencebatch import InferenceBatch
from headrace.core.httpapi import batchwise as operations
from headrace.core.httpapi.operation import JSON_LINES
from headrace.core.openai.errors import conflict, no_such
from headrace.core.openai.files import (
    OUTPUT_PURPOSE,
    PURPOSE,
    batch_file_object,
    check_part,
    files_of,
    uploaded_object,
)
from headrace.core.openai.ids import BatchFile, Part, batch_file, is_uploaded
from headrace.core.openai.pages import page, page_object, window
from headrace.gateway.places.place import Place, Places
from headrace.gateway.tenants.entrance import tenant_of
from headrace.gateway.tenants.stocks import Stocks
from headrace.gateway.web.limits import Limits
from headrace.gateway.web.receiving import receive
from headrace.gateway.web.routing import Answered, Served
from headrace.gateway.web.streamed import Streamed
from headrace.shells.local.state import StateError


class Files:
    """The answers to requests about files."""

    def __init__(self, places: Places, limits: Limits) -> None:
        self._places, self._limits, self._stocks = places, limits, Stocks()

    @property
    def served(self) -> Sequence[Served]:
        """What is answered here."""
        return [
            Answered(operations.LIST_FILES, self.list_page),
            Answered(operations.CREATE_FILE, self.create),
            Answered(operations.RETRIEVE_FILE, self.retrieve),
            Answered(operations.DELETE_FILE, self.delete),
            Answered(operations.DOWNLOAD_FILE, self.content),
        ]

    async def create(self, request: Request) -> Response:
        """`POST /v1/files`."""
        tenant, place, most = tenant_of(request), self._place(request), self._limits.file_bytes
        if tenant.limits is not None:
            most = min(most, tenant.limits.max_file_bytes)
        async with self._stocks.share(tenant, place) as share:
            kept = await receive(request, place, most, self._limits.patience_seconds, share.add)
            share.keep()
        return JSONResponse(uploaded_object(kept))

    async def list_page(self, request: Request) -> Response:
        """`GET /v1/files`."""
        asked = window(request.query_params, most=operations.MOST_FILES, default=operations.MOST_FILES)
        place = self._place(request)
        found = page(await _all(place, request.query_params.get("purpose")), asked, _id)
        shown = [await _object(place, one) for one in found.items]
        return JSONResponse(page_object(shown, has_more=found.has_more))

    async def retrieve(self, request: Request) -> Response:
        """`GET /v1/files/{file_id}`."""
        place = self._place(request)
        return JSONResponse(await _object(place, await _find(place, request.path_params["file_id"])))

    async def content(self, request: Request) -> Response:
        """`GET /v1/files/{file_id}/content`."""
        place = self._place(request)
        found = await _find(place, request.path_params["file_id"])
        if isinstance(found, UploadedFile):
            headers = {"content-length": str(found.bytes), **_named(found.filename)}
            return Streamed(place.content(found), headers=headers, media_type=JSON_LINES)
        batch, part = found
        stream = await place.results(batch, part)
        return Streamed(stream, headers=_named(f"{batch.metadata.name}_{part}.jsonl"), media_type=JSON_LINES)

    async def delete(self, request: Request) -> Response:
        """`DELETE /v1/files/{file_id}`."""
        place = self._place(request)
        found = await _find(place, request.path_params["file_id"])
        if not isinstance(found, UploadedFile):
            name = found[0].metadata.name
            message = f"the output of batch_{name} goes with the batch: headrace delete {name}"
            raise conflict(message, "id", "file_of_a_batch")
        await place.delete_upload(found.id)
        return JSONResponse({"id": found.id, "object": "file", "deleted": True})

    def _place(self, request: Request) -> Place:
        return self._places.of(tenant_of(request).namespace)


async def _find(place: Place, file_id: str) -> UploadedFile | tuple[InferenceBatch, Part]:
    """The file of that id. Raises `ApiError` when there is none."""
    wanted = batch_file(file_id)
    if wanted is not None:
        return check_part(await place.find_batch(wanted.batch), wanted), wanted.part
    found = await place.find_upload(file_id) if is_uploaded(file_id) else None
    if found is None:
        raise no_such("File", file_id[:80])
    return found


async def _all(place: Place, purpose: str | None) -> list[UploadedFile | tuple[InferenceBatch, Part]]:
    """All files of a purpose, or of any: those of batches first, each sort with the newest first."""
    found: list[UploadedFile | tuple[InferenceBatch, Part]] = []
    if purpose in (None, OUTPUT_PURPOSE):
        found += [(batch, part) for batch in await place.batches() for part in files_of(batch)]
    if purpose in (None, PURPOSE):
        found += await place.uploads()
    return found


async def _object(place: Place, found: UploadedFile | tuple[InferenceBatch, Part]) -> JsonObject:
    if isinstance(found, UploadedFile):
        return uploaded_object(found)
    batch, part = found
    try:
        return batch_file_object(batch, part, await place.size(batch, part))
    except StateError as error:  # its output is not where it was; the other files of a list are
        return batch_file_object(batch, part, 0, problem=error.message)


def _id(found: UploadedFile | tuple[InferenceBatch, Part]) -> str:
    return found.id if isinstance(found, UploadedFile) else BatchFile(found[1], found[0].metadata.name).id


def _named(filename: str) -> dict[str, str]:
    return {"content-disposition": f"attachment; filename*=utf-8''{quote(filename, safe='')}"}
