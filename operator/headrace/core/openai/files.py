"""File objects: those of uploads, and those of batches, which are there as long as the batch is."""

from __future__ import annotations

from headrace.api.base import JsonObject
from headrace.api.gateway import UploadedFile
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import OurObject
from headrace.api.output import BatchManifest
from headrace.api.results import Wanted
from headrace.core.openai.batches import created_at, file_id
from headrace.core.openai.errors import ApiError, bad_request, no_such
from headrace.core.openai.ids import BatchFile, Part

PURPOSE = "batch"
OUTPUT_PURPOSE = "batch_output"
PARTS = {Part.OUTPUT: Wanted.SUCCEEDED, Part.ERRORS: Wanted.FAILED}
"""The files that a batch leaves, and which of its records are in them."""


def uploaded_object(file: UploadedFile) -> JsonObject:
    """The File object of an upload."""
    return _object(file.id, file.bytes, file.created_at, file.filename, file.purpose)


def batch_file_object(batch: InferenceBatch, part: Part, size: int, problem: str | None = None) -> JsonObject:
    """The File object of what a batch has left, of so many bytes; `problem`: why it cannot be read."""
    made = batch.status.completion_time
    created = int(made.timestamp()) if made is not None else created_at(batch)
    name = batch.metadata.name
    shown = _object(BatchFile(part, name).id, size, created, f"{name}_{part}.jsonl", OUTPUT_PURPOSE)
    return shown if problem is None else {**shown, "status": "error", "status_details": problem}


def files_of(batch: OurObject) -> list[Part]:
    """The files that a batch has left."""
    return [part for part in PARTS if file_id(batch, part) is not None]


def manifest_bytes(manifest: BatchManifest, part: Part) -> int:
    """How many bytes are in the results or the errors of all shards."""
    files = (shard.results if part == Part.OUTPUT else shard.errors for shard in manifest.shards)
    return sum(file.bytes for file in files)


def check_part(batch: InferenceBatch | None, wanted: BatchFile) -> InferenceBatch:
    """The batch whose file is wanted. Raises `ApiError` when there is no such batch, or no such file of it yet."""
    if batch is not None and wanted.part == Part.INPUT:
        where = batch.spec.input.uri or "in the object itself"
        message = f"the input of batch_{wanted.batch} was not uploaded here: it is {where}"
        raise ApiError(404, message, "id", "not_found")
    if batch is None or file_id(batch, wanted.part) is None:
        raise no_such("File", wanted.id)
    return batch


def check_purpose(purpose: str | None) -> str:
    """The purpose of an upload. Raises `ApiError`."""
    if purpose != PURPOSE:
        given = "it is missing" if purpose is None else f"not {purpose[:80]}"
        raise bad_request(f"purpose must be {PURPOSE}: {given}", "purpose", "invalid_value")
    return purpose


def _object(file: str, size: int, created: int, filename: str, purpose: str) -> JsonObject:
    return {
        "id": file,
        "object": "file",
        "bytes": size,
        "created_at": created,
        "expires_at": None,
        "filename": filename,
        "purpose": purpose,
        "status": "processed",
        "status_details": None,
    }
