"""Reading the shard manifest, and writing the manifest of the whole batch once every shard is committed.

Whoever finds all commits writes `manifest.json`. Its bytes follow from the plan, the commits and the batch's own settings, so it
does not matter how often that is done, or by whom.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import islice
from typing import TypeVar

import orjson
from pydantic import ValidationError

from headrace.api.base import ApiModel
from headrace.api.batchstatus import RecordCounts, Usage
from headrace.api.output import MANIFEST_FILE, BatchManifest, ShardOutput
from headrace.api.reuse import Reused
from headrace.api.worker import ManifestHeader, Shard, WorkerConfig
from headrace_worker.commit import ShardCommit, read_commit
from headrace_worker.errors import JobFailed
from headrace_worker.layout import ShardFolder
from headrace_worker.revisions import committed_folders
from headrace_worker.stores import join, open_store
from headrace_worker.stores.base import NotFound, Store

_Model = TypeVar("_Model", bound=ApiModel)


def read_header(store: Store, uri: str) -> ManifestHeader:
    """What the shard manifest is of. Raises `JobFailed` when there is none (`PlanMissing`), or it is none (`PlanDamaged`)."""
    header = find_header(store, uri)
    if header is None:
        raise _missing(uri)
    return header


def find_header(store: Store, uri: str) -> ManifestHeader | None:
    """Like `read_header`; None when there is no shard manifest."""
    try:
        with store.open(uri) as stream:
            return _parsed(ManifestHeader, stream.readline(), uri, 1)
    except NotFound:
        return None


def iter_shards(store: Store, uri: str) -> Iterator[Shard]:
    """All shards in their order, as a stream. Raises `JobFailed` like `read_header`."""
    for line, row in enumerate(islice(_rows(store, uri), 1, None), 2):
        yield _parsed(Shard, row, uri, line)


def read_shard_entry(store: Store, uri: str, index: int) -> Shard:
    """One shard; reads no further than its line. Raises `JobFailed` like `read_header`, and for an index that there is not."""
    row = next(islice(_rows(store, uri), index + 1, None), None)
    if row is None:
        raise JobFailed(
            "PlanDamaged", f"{uri} has no shard {index}: the job has more completions than the input has shards"
        )
    return _parsed(Shard, row, uri, index + 2)


def _rows(store: Store, uri: str) -> Iterator[bytes]:
    try:
        with store.open(uri) as stream:
            yield from stream
    except NotFound as error:
        raise _missing(uri) from error


def _missing(uri: str) -> JobFailed:
    return JobFailed("PlanMissing", f"there is no shard manifest at {uri}: the role plan must have ended well before")


def _parsed(model: type[_Model], row: bytes, uri: str, line: int) -> _Model:
    try:
        return model.model_validate_json(row)
    except ValidationError as error:
        raise JobFailed(
            "PlanDamaged", f"{uri} is damaged in line {line}: delete it and let the batch be planned again"
        ) from error


def write_batch_manifest_if_complete(store: Store, config: WorkerConfig) -> BatchManifest | None:
    """Write `manifest.json` when every shard is committed, and return it; None while one is not. `store` is the output's."""
    plans = open_store(config.plan_uri)
    header = read_header(plans, config.plan_uri)
    commits = _commits(store, config.output_uri, header.shards)
    if commits is None:
        return None
    manifest = _batch_manifest(config, header, file_sha256(plans, config.plan_uri), commits)
    data = orjson.dumps(manifest.to_object(), option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_INDENT_2)
    store.put(join(config.output_uri, MANIFEST_FILE), data)
    return manifest


def file_sha256(store: Store, uri: str) -> str:
    """The hash of an object's bytes, in hex."""
    digest = hashlib.sha256()
    with store.open(uri) as stream:
        while piece := stream.read(1024**2):
            digest.update(piece)
    return digest.hexdigest()


def _commits(store: Store, output_uri: str, shards: int) -> list[ShardCommit] | None:
    """The newest commits of all shards; None while one has none. Shards end in about their order, so the last is asked for first."""
    if not store.exists(ShardFolder(output_uri, shards - 1).commit):
        return None
    folders = committed_folders(store, output_uri)
    commits = [commit for commit in (read_commit(store, folder) for folder in folders.values()) if commit is not None]
    return commits if len(commits) == shards else None


def _batch_manifest(
    config: WorkerConfig, header: ManifestHeader, plan_sha256: str, commits: list[ShardCommit]
) -> BatchManifest:
    return BatchManifest(
        batch=header.batch,
        created=header.created,
        plan_sha256=plan_sha256,
        model=config.model,
        engine=config.engine,
        input=config.input,
        parameters=config.parameters,
        records=RecordCounts(
            total=sum(commit.records.total for commit in commits),
            succeeded=sum(commit.records.succeeded for commit in commits),
            failed=sum(commit.records.failed for commit in commits),
        ),
        usage=sum((commit.usage for commit in commits), Usage()),
        resumed_from=config.resume_from,
        reused=sum((commit.reused for commit in commits), Reused()),
        batches=sum(commit.batches for commit in commits),
        batched_records=sum(commit.batched_records for commit in commits),
        shards=tuple(map(_shard_output, commits)),
    )


def _shard_output(commit: ShardCommit) -> ShardOutput:
    return ShardOutput(index=commit.shard, attempt=commit.attempt, results=commit.results, errors=commit.errors)
