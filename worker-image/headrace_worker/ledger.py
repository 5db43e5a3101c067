"""What the journals of one shard say, line by line. Pure: bytes in, bytes out, and what they add up to.

Every line is `crc32 kind …`, and counts only when it is whole and its checksum holds, so a torn or damaged line is as good as
absent. The kinds:

* `H {json}`: the head of a journal, see `JournalHead`;
* `B position position …`: work on these records has begun;
* `R position prompt_tokens completion_tokens line`: a result, `line` being the very line of the output file;
* `E position prompt_tokens completion_tokens line`: an error;
* `P …`, `Q …`, `C …`: the same as `R`, of a result that was there already: in an earlier batch, of an equal record, in a cache;
* `U {json}`: what the shard has used so far, see `Used`.

A `Ledger` keeps ten bytes a record, whatever the length of the lines: it knows where a line is, not what it says.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

import orjson

from headrace.api.reuse import Reused

HEAD, BEGUN, RESULT, ERROR, USED = b"H", b"B", b"R", b"E", b"U"
RESUMED, EQUAL, CACHED = b"P", b"Q", b"C"
_FINISHED = (RESULT, ERROR, RESUMED, EQUAL, CACHED)

_OFFSET_BITS = 40
_MOST_TRIES = 255
_KEPT = 2


class Entry(NamedTuple):
    """One finished record, as it goes into a journal."""

    position: int
    """Place of the record in its shard, from 0."""
    line: bytes
    """The line of the output file, newline included."""
    failed: bool = False
    """Whether it is a line of the errors file."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reused: bytes = b""
    """Of a result that was there already: RESUMED, EQUAL or CACHED."""


class Place(NamedTuple):
    """Where a record's line is: in the journal of which attempt, and at which byte."""

    attempt: int
    offset: int


@dataclass(slots=True)
class Used:
    """What a shard has used, all of its attempts together."""

    gpu_seconds: float = 0.0
    batches: int = 0
    batched_records: int = 0


@dataclass(slots=True)
class Counts:
    """What has become of the records of a shard, all of its attempts together."""

    succeeded: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reprocessed: int = 0
    """Times that a record was begun although an attempt before had begun it: work done twice."""
    resumed: int = 0
    equal: int = 0
    cached: int = 0
    """Results that were there already."""

    @property
    def reused(self) -> Reused:
        """The last three."""
        return Reused(resumed=self.resumed, equal=self.equal, cached=self.cached)


def seal(body: bytes) -> bytes:
    """A journal line of a body that ends with its newline."""
    return b"%08x %b" % (zlib.crc32(body), body)


def unseal(line: bytes) -> bytes | None:
    """The body of a journal line; None when the line is torn or damaged."""
    body = line[9:]
    return body if line[:9] == b"%08x " % zlib.crc32(body) and body.endswith(b"\n") else None


def entry_line(entry: Entry) -> bytes:
    """The journal line of a finished record."""
    position, line, failed, prompt_tokens, completion_tokens, reused = entry
    kind = reused or (ERROR if failed else RESULT)
    return seal(b"%b %d %d %d %b" % (kind, position, prompt_tokens, completion_tokens, line))


def entry_of(line: bytes) -> Entry | None:
    """The finished record in a journal line; None when there is none in it."""
    body = unseal(line)
    if body is None or body[:1] not in _FINISHED:
        return None
    kind, position, prompt_tokens, completion_tokens, payload = body.split(b" ", 4)
    reused = kind if kind in (RESUMED, EQUAL, CACHED) else b""
    return Entry(int(position), payload, kind == ERROR, int(prompt_tokens), int(completion_tokens), reused)


def output_line(line: bytes, position: int) -> tuple[bytes, bool] | None:
    """The output line in the journal line of the finished record at that position, and whether it is an error's; None for any other."""
    body = unseal(line)
    parts = body.split(b" ", 4) if body is not None else []
    if len(parts) < 5 or parts[0] not in _FINISHED or int(parts[1]) != position:
        return None
    return parts[4], parts[0] == ERROR


def begun_line(positions: Iterable[int]) -> bytes:
    """The journal line that says that work on these records begins."""
    return seal(b"%b %b\n" % (BEGUN, b" ".join(b"%d" % position for position in positions)))


def used_line(used: Used) -> bytes:
    """The journal line that says what the shard has used so far."""
    return seal(b"%b %b\n" % (USED, orjson.dumps(used)))


class Ledger:
    """What has become of each record of a shard. A record is finished once: the first line about it counts."""

    def __init__(self, records: int) -> None:
        self.counts = Counts()
        self.used = Used()
        self.line_bytes = 0
        """Of all lines of finished records together."""
        self.kept = 0
        """Records whose results an older revision of the shard has."""
        self._finished = bytearray(records)
        self._begun = bytearray(records)
        self._given_up: dict[int, int] = {}
        """After how many tries a record had failed that a retry of the batch works on again."""
        self._places = array("Q", bytes(8 * records))

    def __len__(self) -> int:
        return len(self._finished)

    @property
    def pending(self) -> int:
        """Records that are neither succeeded nor failed."""
        return len(self) - self.counts.succeeded - self.counts.failed

    def is_finished(self, position: int) -> bool:
        """Whether the record has its result or its error."""
        return bool(self._finished[position])

    def is_kept(self, position: int) -> bool:
        """Whether the record's result is that of an older revision of the shard; then it has no place."""
        return self._finished[position] == _KEPT

    def keep_all_but(self, failed: Mapping[int, int]) -> None:
        """Keep what an older revision has, but for the records that failed there after so many tries. The ledger must be new."""
        self._finished = bytearray([_KEPT]) * len(self)
        for position, tries in failed.items():
            self._finished[position] = 0
            self._begun[position] = self._given_up[position] = min(tries, _MOST_TRIES)
        self.kept = self.counts.succeeded = self._finished.count(_KEPT)

    def tries(self, position: int) -> int:
        """How many attempts have begun work on the record, at most 255."""
        return self._begun[position]

    def place(self, position: int) -> Place:
        """Where the line of a finished record is."""
        packed = self._places[position]
        return Place(packed >> _OFFSET_BITS, packed & ((1 << _OFFSET_BITS) - 1))

    def order(self, position: int) -> int:
        """A number that grows with the place of a record's line, by attempt and then by byte."""
        return self._places[position]

    def begin(self, positions: Iterable[int]) -> None:
        """Note that an attempt begins work on these records; once an attempt and record."""
        for position in positions:
            self.counts.reprocessed += self._begun[position] > self._given_up.get(position, 0)
            self._begun[position] = min(self._begun[position] + 1, _MOST_TRIES)

    def finish(self, entry: Entry, attempt: int, offset: int) -> None:
        """Note that a record is finished, and that its line is in the journal of this attempt, at this byte."""
        position, line, failed, prompt_tokens, completion_tokens, reused = entry
        if self._finished[position]:
            return
        self._finished[position] = 1
        self._places[position] = attempt << _OFFSET_BITS | offset
        self.line_bytes += len(line)
        counts = self.counts
        if failed:
            counts.failed += 1
        else:
            counts.succeeded += 1
            if reused:
                counts.resumed += reused == RESUMED
                counts.equal += reused == EQUAL
                counts.cached += reused == CACHED
        counts.prompt_tokens += prompt_tokens
        counts.completion_tokens += completion_tokens

    def replay(self, line: bytes, place: Place, *, errors: bool = True) -> None:
        """Take in one line of a journal; one that does not count changes nothing. `errors`: whether errors do."""
        entry = entry_of(line)
        if entry is not None:
            if errors or not entry.failed:
                self.finish(entry, place.attempt, place.offset)
            else:
                self._given_up[entry.position] = self._begun[entry.position]
            return
        body = unseal(line)
        if body is not None and body[:1] == BEGUN:
            self.begin(map(int, body[2:].split()))
        elif body is not None and body[:1] == USED:
            told = orjson.loads(body[2:])
            self.used = Used(**{field.name: told[field.name] for field in fields(Used)})
