"""Finding a `custom_id` that is used twice, exactly, in eight bytes a record.

The first reading of an input keeps a 64-bit hash of every id. Only when a hash comes twice is the input read again; then the ids
themselves are kept, but only those whose hash did.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from itertools import pairwise
from typing import TypeAlias

Place: TypeAlias = tuple[str | None, int]
"""The file, where there are several, and the line."""

_TOP_BITS = 56


class SeenIds:
    """The ids of one reading. `suspects` are the hashes that an earlier reading has found more than once."""

    def __init__(self, suspects: frozenset[int] = frozenset()) -> None:
        self._suspects = suspects
        # A bucket for each value of the top byte, from -128 to 127: a list takes the negative ones as they are. Sorting one
        # bucket after the other needs little memory at a time.
        self._buckets = [array("q") for _ in range(256)]
        self._first_uses: dict[str, Place] = {}

    def recorder(self) -> Callable[[str], int]:
        """A fast function that keeps an id's hash, and returns it."""
        appends = [bucket.append for bucket in self._buckets]

        def record(custom_id: str) -> int:
            digest = hash(custom_id)
            appends[digest >> _TOP_BITS](digest)
            return digest

        return record

    def first_use(self, custom_id: str, place: Place) -> Place | None:
        """Where a suspect was used before; None when it is used at `place` for the first time, or is no suspect."""
        if hash(custom_id) not in self._suspects:
            return None
        found = self._first_uses.setdefault(custom_id, place)
        return None if found == place else found

    def repeated(self) -> frozenset[int]:
        """The hashes that came more than once."""
        found: set[int] = set()
        for bucket in self._buckets:
            if len(set(bucket)) < len(bucket):
                ordered = sorted(bucket)
                found.update(one for one, other in pairwise(ordered) if one == other)
        return frozenset(found)
