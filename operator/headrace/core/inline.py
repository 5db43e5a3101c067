"""Inline records: small enough to be checked right here, and carried to the workers in a ConfigMap."""

from __future__ import annotations

from headrace.api.base import JsonObject
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.manifest import InlinePlan, lay_out_inline
from headrace.core.children import owned
from headrace.core.observed import Installation
from headrace.core.volumes import PLAN_FILE, RECORDS_FILE, Volumes, inline_config_map_name
from headrace.core.workerconfig import identity


def lay_out(batch: InferenceBatch, place: Installation, *, ids_only: bool = False) -> InlinePlan | None:
    """The inline records as a file with its shard manifest; None when the input is elsewhere.

    `ids_only`: looked at for their ids alone, and in one piece.
    """
    if batch.spec.input.inline is None:
        return None
    created = batch.metadata.creation_timestamp
    return lay_out_inline(
        batch.spec.input.inline,
        batch.spec.input,
        None if ids_only else batch.spec.model,
        shards=1 if ids_only else batch.spec.shards,
        batch=identity(batch),
        created=int(created.timestamp()) if created is not None else 0,
        uri=Volumes.of(batch, place).input.uri or "",
    )


def inline_config_map(batch: InferenceBatch, inline: InlinePlan) -> JsonObject:
    """The ConfigMap with the records and, where they were read here, their shard manifest."""
    manifest = {PLAN_FILE: inline.manifest.decode()} if inline.manifest else {}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": owned(batch, inline_config_map_name(batch), "input"),
        "data": {RECORDS_FILE: inline.lines.decode()} | manifest,
    }
