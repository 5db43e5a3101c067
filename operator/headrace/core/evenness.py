"""How evenly work was spread, over the branches of a fan-out or the shards of a batch, and who lags behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median_low

SHOWN_STRAGGLERS = 10
_TIMES_THE_MEDIAN = 2
_MARGIN_SECONDS = 3
"""Less is chance: times are known to the second."""


def jain_percent(values: Sequence[int]) -> int | None:
    """Jain's fairness index, (Σx)² / (n · Σx²), in whole percent, rounded down; None for less than two values, and when all are 0.

    It is 1 when all x are equal, and 1/n when one has all.
    """
    squares = sum(value * value for value in values)
    if len(values) < 2 or not squares:
        return None
    return 100 * sum(values) ** 2 // (len(values) * squares)


def stragglers(ended: Mapping[str, int], running: Mapping[str, int]) -> tuple[str, ...]:
    """Names of what takes, or took, more than twice as long as the median of what has ended; the slowest first, ten at most.

    Both mappings are from names to seconds, of what is running those so far. Nobody lags behind before two have ended.
    """
    if len(ended) < 2:
        return ()
    usual = median_low(ended.values())
    most = max(_TIMES_THE_MEDIAN * usual, usual + _MARGIN_SECONDS)
    slow = {name: seconds for name, seconds in {**ended, **running}.items() if seconds > most}
    return tuple(sorted(slow, key=lambda name: -slow[name])[:SHOWN_STRAGGLERS])
