"""Regions of a vector space, so that a shift of what prompts are about is a shift between few bins.

A vector is projected onto four directions that are the same in each run. For each it is noted on which side of the reference's median it
is, which makes 16 regions. Of a vector nothing is kept but its projections.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import compress
from statistics import median

DIRECTIONS = 4
_DECIMALS = 6


@dataclass
class Projections:
    """The vectors of a run, as far as they are needed."""

    dimensions: int = 0
    """Of the first one; one of another length is left out."""
    values: list[tuple[float, ...]] = field(default_factory=list)

    def add(self, vector: Sequence[float]) -> None:
        """One more vector; only where it points to counts."""
        length = math.sqrt(sum(x * x for x in vector))
        self.dimensions = self.dimensions or len(vector)
        if length and len(vector) == self.dimensions:
            self.values.append(tuple(_projection(vector, one) / length for one in range(DIRECTIONS)))

    @property
    def medians(self) -> tuple[float, ...]:
        """The middle of the run in each direction."""
        return tuple(round(median(column), _DECIMALS) for column in zip(*self.values, strict=True))

    def buckets(self, middles: Sequence[float]) -> Counter[str]:
        """How many vectors are in each region around these middles: a bit for each direction."""
        return Counter(
            "".join("1" if value > middle else "0" for value, middle in zip(found, middles, strict=True))
            for found in self.values
        )


def _projection(vector: Sequence[float], direction: int) -> float:
    return 2 * sum(compress(vector, _signs(direction, len(vector)))) - sum(vector)


@cache
def _signs(direction: int, dimensions: int) -> tuple[bool, ...]:
    """Which components of a direction are positive; they are all of one size."""
    drawn = hashlib.shake_256(f"headrace direction {direction}".encode()).digest(-(-dimensions // 8))
    return tuple(bool(drawn[place // 8] >> (place % 8) & 1) for place in range(dimensions))
