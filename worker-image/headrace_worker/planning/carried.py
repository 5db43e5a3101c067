"""Records that an earlier batch has left without a result, for this one to take up: where they lie in the input of that batch.

Its shard manifest says where its records are, and its commits which of them have failed; of a shard without a commit none is done. What
cannot be found any more, because somebody has deleted the output or the input since, is gone, and the log says so: the records that are
there must not wait for it for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator

import orjson

from headrace.api.input import Input
from headrace.api.output import PLAN_PATH
from headrace.api.records import Reader, RecordError
from headrace.api.results import Wanted
from headrace.api.worker import Segment, Shard
from headrace_worker.failures import input_failures
from headrace_worker.formats import readers, records_in
from headrace_worker.layout import ShardFolder
from headrace_worker.manifest import find_header, iter_shards
from headrace_worker.results import records
from headrace_worker.revisions import committed_folders
from headrace_worker.stores import join, open_store
from headrace_worker.stores.base import NotFound, Store

log = logging.getLogger(__name__)


def undone(spec: Input, read_anyway: Collection[str]) -> list[Segment]:
    """The records without a result of the batch whose output `spec.carried_from` is, in their order, but for those in these objects.

    Raises `JobFailed` when the output or the input cannot be read, or the output is damaged.
    """
    uri = spec.carried_from
    if uri is None:
        return []
    with input_failures():
        output = open_store(uri)
        if find_header(output, join(uri, PLAN_PATH)) is None:
            log.warning("there is no batch in %s any more: nothing is taken up from it", uri)
            return []
        folders = committed_folders(output, uri)
        return [
            segment
            for shard in iter_shards(output, join(uri, PLAN_PATH))
            for segment in _undone_of(shard, spec, _failed(output, uri, folders.get(shard.index)))
            if segment.uri not in read_anyway
        ]


def _failed(output: Store, uri: str, folder: ShardFolder | None) -> frozenset[str] | None:
    """The ids of the records of a shard that have failed; None when all are undone."""
    if folder is None:
        return None
    return frozenset(orjson.loads(line)["custom_id"] for line in records(output, uri, [folder], Wanted.FAILED))


def _undone_of(shard: Shard, spec: Input, failed: frozenset[str] | None) -> Iterator[Segment]:
    for segment in shard.segments if failed is None or failed else ():
        try:
            yield from _pieces(segment, spec, failed)
        except NotFound:
            log.warning("%s is not there any more: its records are not taken up", segment.uri)


def _is_undone(raw: bytes | RecordError, read: Reader, failed: frozenset[str] | None) -> bool:
    """Whether it is a record, as it was when it was planned, and one of those."""
    if isinstance(raw, RecordError):
        return False
    try:
        custom_id = read(raw).custom_id
    except RecordError:
        return False
    return failed is None or custom_id in failed


def _pieces(segment: Segment, spec: Input, failed: frozenset[str] | None) -> Iterator[Segment]:
    """The parts of a segment that hold only records that are undone, each as large as can be."""
    read = readers(spec, None)(segment.custom_id or "")
    piece: Segment | None = None
    store = open_store(segment.uri)
    for start, end, line, raw in records_in(store, segment.uri, spec, segment.start, segment.line, segment.end):
        if not _is_undone(raw, read, failed):
            continue
        if piece is not None and piece.end == start:
            piece = piece.model_copy(update={"end": end})
            continue
        if piece is not None:
            yield piece
        piece = segment.model_copy(update={"start": start, "end": end, "line": line})
    if piece is not None:
        yield piece
