"""Reading one shard again, with the proof that its bytes are still those that were planned."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from headrace.api.base import JsonObject
from headrace.api.common import Input
from headrace.api.model import Model
from headrace.api.records import Reader, RecordError, Request
from headrace.api.worker import Segment, Shard
from headrace_worker.errors import JobFailed
from headrace_worker.formats import locate, readers
from headrace_worker.stores.base import NotFound, Store, StoreError


def read_shard(store: Store, shard: Shard, spec: Input, model: Model | None) -> Iterator[tuple[int, Request]]:
    """The records of a shard with their positions from 0, as a stream; without a model, for their ids alone.

    Raises `JobFailed` (`InputChanged`) when the bytes are not those of the plan; for a change that leaves every line readable
    that is known only at the end, so nothing may be committed before this iterator has ended. `InputUnreadable`: the
    place of the input refuses to be read.
    """
    for position, _, request in _counted(store, shard, spec, readers(spec, model)):
        yield position, request


class Source(NamedTuple):
    """A record as it stands in the input."""

    position: int
    custom_id: str
    raw: bytes
    """Its line; for the format text, the file."""
    question: JsonObject | RecordError | None
    """Its request, or what is wrong with it; None when nobody has asked for it."""


def read_sources(store: Store, shard: Shard, spec: Input, model: Model | None) -> Iterator[Source]:
    """The records of a shard, looked at for their ids alone; with a model, each also with its request for that model."""
    reader_for = readers(spec, model) if model is not None else None
    for position, (segment, raw), request in _counted(store, shard, spec, readers(spec, None)):
        question = _question(reader_for(segment.custom_id or ""), raw) if reader_for is not None else None
        yield Source(position, request.custom_id, raw, question)


def _question(read: Reader, raw: bytes) -> JsonObject | RecordError:
    try:
        return read(raw).body
    except RecordError as error:
        return error


def _counted(
    store: Store, shard: Shard, spec: Input, reader_for: Callable[[str], Reader]
) -> Iterator[tuple[int, tuple[Segment, bytes], Request]]:
    """Position, bytes and request of each record that the batch takes."""
    position = 0
    for segment, raw in _proven(store, shard, spec):
        request = _read(reader_for(segment.custom_id or ""), raw, shard, segment)
        if not request.taken:
            continue
        if position == shard.records:
            raise _changed(shard, segment)
        yield position, (segment, raw), request
        position += 1
    if position != shard.records:
        raise _changed(shard, shard.segments[-1])


def verify_shard(store: Store, shard: Shard, spec: Input) -> None:
    """Read the bytes of a shard and nothing more, as fast as they can be hashed. Raises `JobFailed` like `read_shard`."""
    for _ in _proven(store, shard, spec):
        pass


def _proven(store: Store, shard: Shard, spec: Input) -> Iterator[tuple[Segment, bytes]]:
    """The bytes of each record, also of those that the batch passes over. Ends well only if they are those of the plan."""
    digest = hashlib.sha256()
    for segment in shard.segments:
        for raw in _bytes_of(store, segment, spec):
            digest.update(raw)
            yield segment, raw
    if digest.hexdigest() != shard.sha256:
        raise _changed(shard, shard.segments[-1])


def _bytes_of(store: Store, segment: Segment, spec: Input) -> Iterator[bytes]:
    try:
        with store.open(segment.uri, segment.start) as stream:
            for *_, raw in locate(stream, spec, segment.start, segment.line, segment.end):
                if isinstance(raw, RecordError):
                    raise JobFailed("InputChanged", _sentence(segment, f"has another line now: {raw.message}"))
                yield raw
    except NotFound as error:
        raise JobFailed("InputChanged", _sentence(segment, "is not there any more")) from error
    except StoreError as error:
        raise JobFailed("InputUnreadable", str(error)) from error


def _read(read: Reader, raw: bytes, shard: Shard, segment: Segment) -> Request:
    try:
        return read(raw)
    except RecordError as error:
        raise _changed(shard, segment) from error


def _changed(shard: Shard, segment: Segment) -> JobFailed:
    return JobFailed("InputChanged", _sentence(segment, f"has changed: shard {shard.index} is not what it was"))


def _sentence(segment: Segment, what: str) -> str:
    return f"{segment.uri} {what} since the input was planned; put the old content back, or make a new batch"
