"""How an input is cut into shards, and how that is written down.

Imagine the input laid out in one row of bytes that is divided into `shards` equal runs: a record belongs to the run that its
middle lies in, and a run that holds records is a shard. So shards are contiguous, of about equal size and never empty, and each
cut is known while the input streams by. A record in parts is so many records, each with its share of the bytes; where a cut falls
between two of them, both shards read the whole record and each takes its own parts.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable

import orjson

from headrace.api.worker import BatchIdentity, ManifestHeader, Segment, Shard

_NEVER = sys.maxsize


class ShardCutter:
    """Takes the records of an input in their order, and cuts them into shards."""

    def __init__(self, shards: int, size: int, limit: int | None = None) -> None:
        """Cut `size` bytes into at most `shards` shards.

        With `limit` only the first so many records are taken, whose bytes nobody knows beforehand: then the shards are of equal
        numbers of records, or of equal bytes where the input ends before the limit.
        """
        self.records = 0
        self.parents = 0
        """Records that came in parts."""
        self._bytes = 0
        self._lines: list[bytes] = []
        self._wanted, self._size, self._limit = shards, max(size, 1), limit or _NEVER
        self._uri = ""
        self._custom_id: str | None = None
        self._offset = self._object_size = self._first_byte = 0
        self._segment: tuple[int, int] | None = None
        """First byte and line of the segment that is still growing."""
        self._end = 0
        self._segments: list[Segment] = []
        self._first_record = self._first_part = 0
        self._digest = hashlib.sha256()
        self._run = 0
        self._aim(0)

    def begin(self, uri: str, size: int, custom_id: str | None = None, first_byte: int = 0) -> None:
        """The records to come are from `size` bytes of this object, from the first on; `custom_id`: they are one record, of that id."""
        self._close_segment()
        self._offset += self._object_size
        self._uri, self._object_size, self._custom_id, self._first_byte = uri, size, custom_id, first_byte

    def add(self, start: int, end: int, line: int, raw: bytes) -> None:
        """The next record: bytes `start` to `end` of the object, from its line `line`."""
        middle = self._offset + (start + end) // 2 - self._first_byte
        if middle >= self._next_byte or self.records >= self._next_record:
            self._cut(middle, self.records)
        if self._segment is None:
            self._segment = start, line
        self._end = end
        self._digest.update(raw)
        self.records += 1

    def add_parts(self, start: int, end: int, line: int, raw: bytes, parts: Iterable[tuple[float, bool]]) -> None:
        """The next record, which comes in parts: of each where its middle lies in the record, from 0 to 1, and whether it is taken."""
        held = False
        for position, (middle, taken) in enumerate(parts):
            place, number = self._offset + start + int(middle * (end - start)), self.parents + middle
            if taken and (place >= self._next_byte or number >= self._next_record):
                self._cut(place, number)
                self._bytes -= (end - start) * held
                held = False
            if taken and self._segment is None:
                self._segment = start, line
                self._first_part = self._first_part if self._segments else position
            if not held and self._segment is not None:
                self._end, held = end, True
                self._digest.update(raw)
            self.records += taken
        self.parents += 1

    def pass_over(self, end: int, raw: bytes) -> None:
        """The next record, up to byte `end`, is not for this batch: the shard that it lies in is read past it."""
        if self._segment is not None:
            self._end = end
            self._digest.update(raw)

    def manifest(
        self, batch: BatchIdentity, created: int, prompt_tokens: int, carried: int = 0, modified: int | None = None
    ) -> tuple[ManifestHeader, bytes]:
        """There are no more records: the header of the shard manifest, and the whole of it.

        `created`, and `modified` of the input, are in seconds since the epoch; `prompt_tokens` is an estimate of all prompts together;
        `carried` records are of an earlier batch.
        """
        self._close_shard()
        header = ManifestHeader(
            batch=batch,
            created=created,
            modified=modified,
            records=self.records,
            parents=self.parents or None,
            carried=carried or None,
            shards=len(self._lines),
            input_bytes=self._bytes,
            estimated_prompt_tokens=prompt_tokens,
        )
        return header, _json_line(header) + b"".join(self._lines)

    def _cut(self, middle: int, number: float) -> None:
        self._close_shard()
        run = max(middle * self._wanted // self._size, int(number * self._wanted // self._limit))
        self._aim(max(run, self._run + 1))

    def _aim(self, run: int) -> None:
        """Set where that run ends; the last one takes whatever comes, even when the input has grown since it was listed."""
        last = run >= self._wanted - 1
        self._next_byte = _NEVER if last else -(-(run + 1) * self._size // self._wanted)
        self._next_record = _NEVER if last else (run + 1) * self._limit / self._wanted
        self._run = run

    def _close_segment(self) -> None:
        if self._segment is not None:
            start, line = self._segment
            self._segments.append(
                Segment(uri=self._uri, start=start, end=self._end, line=line, custom_id=self._custom_id)
            )
            self._bytes += self._end - start
            self._segment = None

    def _close_shard(self) -> None:
        self._close_segment()
        if not self._segments:
            return
        shard = Shard(
            index=len(self._lines),
            first_record=self._first_record,
            first_part=self._first_part,
            records=self.records - self._first_record,
            sha256=self._digest.hexdigest(),
            segments=tuple(self._segments),
        )
        self._lines.append(_json_line(shard))
        self._segments, self._first_record, self._digest = [], self.records, hashlib.sha256()
        self._first_part = 0


def _json_line(model: ManifestHeader | Shard) -> bytes:
    return orjson.dumps(model.to_object(), option=orjson.OPT_APPEND_NEWLINE)
