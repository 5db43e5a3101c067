"""Reading one shard again, with the proof that its bytes are still those that were planned."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from headrace.api.base import JsonObject
from headrace.api.input import Input
from headrace.api.model import Model
from headrace.api.records import RecordError, Request, request_maker
from headrace.api.worker import Segment, Shard
from headrace_worker.errors import JobFailed
from headrace_worker.formats import part_readers, readers, records_in
from headrace_worker.stores.base import NotFound, Store, StoreError


def read_shard(store: Store, shard: Shard, spec: Input, model: Model | None) -> Iterator[tuple[int, Request]]:
    """The records of a shard with their positions from 0, as a stream; without a model, for their ids alone.

    Raises `JobFailed` (`InputChanged`) when the bytes are not those of the plan; for a change that leaves every line readable
    that is known only at the end, so nothing may be committed before this iterator has ended. `InputUnreadable`: the
    place of the input refuses to be read.
    """
    for position, found in _counted(store, shard, spec, model):
        yield position, found.request


class Source(NamedTuple):
    """A record as it stands in the input."""

    position: int
    custom_id: str
    raw: bytes
    """Its line; for the format text, the file; of a part, nothing."""
    part: JsonObject | None
    """The fields of a part, which are those of its record but for the text; None for a record that was not split."""
    question: JsonObject | RecordError | None
    """Its request, or what is wrong with it; None when nobody has asked for it."""


def read_sources(store: Store, shard: Shard, spec: Input, model: Model | None) -> Iterator[Source]:
    """The records of a shard, looked at for their ids alone; with a model, each also with its request for that model."""
    ask = _questions(spec, model) if model is not None else _no_question
    for position, found in _counted(store, shard, spec, None):
        yield Source(position, found.request.custom_id, found.raw, found.part, ask(found))


class _Found(NamedTuple):
    """A record, or a part of one, as it was found in a segment."""

    segment: Segment
    request: Request
    raw: bytes = b""
    part: JsonObject | None = None


def _questions(spec: Input, model: Model) -> Callable[[_Found], JsonObject | RecordError]:
    """From a record to its request for that model, or to what is wrong with it."""
    read = _part_asker(spec, model) if spec.split is not None else _whole_asker(spec, model)

    def question(found: _Found) -> JsonObject | RecordError:
        try:
            return read(found).body
        except RecordError as error:
            return error

    return question


def _whole_asker(spec: Input, model: Model) -> Callable[[_Found], Request]:
    reader_for = readers(spec, model)
    return lambda found: reader_for(found.segment.custom_id or "")(found.raw)


def _part_asker(spec: Input, model: Model) -> Callable[[_Found], Request]:
    make = request_maker(spec, model)
    return lambda found: make(found.part or {})


def _no_question(_: _Found) -> None:
    return None


def _counted(store: Store, shard: Shard, spec: Input, model: Model | None) -> Iterator[tuple[int, _Found]]:
    """Each record that the batch takes, and its position."""
    read = _read_wholes if spec.split is None else _read_parts
    position = 0
    for found in read(store, shard, spec, model):
        if not found.request.taken:
            continue
        if position == shard.records:
            if spec.split is None:
                raise _changed(shard, found.segment)
            continue  # the other parts of its last record are the next shard's
        yield position, found
        position += 1
    if position != shard.records:
        raise _changed(shard, shard.segments[-1])


def _read_wholes(store: Store, shard: Shard, spec: Input, model: Model | None) -> Iterator[_Found]:
    reader_for = readers(spec, model)
    for segment, raw in _proven(store, shard, spec):
        try:
            yield _Found(segment, reader_for(segment.custom_id or "")(raw), raw)
        except RecordError as error:
            raise _changed(shard, segment) from error


def _read_parts(store: Store, shard: Shard, spec: Input, model: Model | None) -> Iterator[_Found]:
    """The same for an input that is split. Of the first record, the parts before `first_part` are those of an earlier shard."""
    reader_for, first = part_readers(spec, model), shard.first_part
    for segment, raw in _proven(store, shard, spec):
        try:
            for part in reader_for(segment.custom_id or "")(raw, first):
                yield _Found(segment, part.request, part=part.fields)
        except RecordError as error:
            raise _changed(shard, segment) from error
        first = 0


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
        for _, _, _, raw in records_in(store, segment.uri, spec, segment.start, segment.line, segment.end):
            if isinstance(raw, RecordError):
                raise JobFailed("InputChanged", _sentence(segment, f"has another line now: {raw.message}"))
            yield raw
    except NotFound as error:
        raise JobFailed("InputChanged", _sentence(segment, "is not there any more")) from error
    except StoreError as error:
        raise JobFailed("InputUnreadable", str(error)) from error


def _changed(shard: Shard, segment: Segment) -> JobFailed:
    return JobFailed("InputChanged", _sentence(segment, f"has changed: shard {shard.index} is not what it was"))


def _sentence(segment: Segment, what: str) -> str:
    return f"{segment.uri} {what} since the input was planned; put the old content back, or make a new batch"
