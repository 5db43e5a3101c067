"""Inline records: small enough to be checked right here, and carried to the workers in a ConfigMap.

A batch is looked at many times, and its records are the same each time. So what they come to is kept for a while, by their content.
"""

from __future__ import annotations

from hashlib import blake2b
from threading import Lock

from cachetools import LRUCache, cached

from headrace.api.base import JsonObject
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.manifest import InlinePlan, lay_out_inline
from headrace.api.output import PLAN_FILE
from headrace.core.children import owned
from headrace.core.observed import Installation
from headrace.core.volumes import RECORDS_FILE, Volumes, inline_config_map_name
from headrace.core.workerconfig import identity

KEPT_BYTES = 8 * 2**20
"""Most that is kept of records and manifests: those of some thousand small batches."""


def lay_out(batch: InferenceBatch, place: Installation, *, ids_only: bool = False) -> InlinePlan | None:
    """The inline records as a file with its shard manifest; None when the input is elsewhere.

    `ids_only`: looked at for their ids alone, and in one piece.
    """
    if batch.spec.input.inline is None:
        return None
    return _lay_out(batch, Volumes.of(batch, place).input.uri or "", ids_only=ids_only)


def _content(batch: InferenceBatch, uri: str, *, ids_only: bool) -> bytes:
    """Stands for all that the answer depends on."""
    models = (batch.spec.input, batch.spec.model, identity(batch))
    rest = f"{batch.spec.shards} {_created(batch)} {uri} {ids_only} {batch.spec.evaluation is None}"
    return blake2b("\n".join((*(model.model_dump_json() for model in models), rest)).encode()).digest()


def _size(plan: InlinePlan) -> int:
    return len(plan.lines) + len(plan.manifest)


@cached(LRUCache(KEPT_BYTES, _size), key=_content, lock=Lock())
def _lay_out(batch: InferenceBatch, uri: str, *, ids_only: bool) -> InlinePlan:
    return lay_out_inline(
        batch.spec.input.inline or (),
        batch.spec.input,
        None if ids_only else batch.spec.model,
        shards=1 if ids_only else batch.spec.shards,
        batch=identity(batch),
        created=_created(batch),
        uri=uri,
        evaluation=batch.spec.evaluation,
    )


def _created(batch: InferenceBatch) -> int:
    """In seconds since the epoch; 0 where nobody knows."""
    created = batch.metadata.creation_timestamp
    return int(created.timestamp()) if created is not None else 0


def inline_config_map(batch: InferenceBatch, inline: InlinePlan) -> JsonObject:
    """The ConfigMap with the records and, where they were read here, their shard manifest."""
    manifest = {PLAN_FILE: inline.manifest.decode()} if inline.manifest else {}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": owned(batch, inline_config_map_name(batch), "input"),
        "data": {RECORDS_FILE: inline.lines.decode()} | manifest,
    }
