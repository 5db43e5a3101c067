"""Distributions as counts of bins, and by how much two of them differ: the population stability index.

PSI = Σ (q - p) · ln(q / p) over the bins, p being the share of a bin in the reference and q in the run. Each bin gets half a record more
than it has, so that one that is empty in one run has a logarithm too.

Runs that are alike differ as well, and small ones by a lot. Then PSI · n·m / (n + m) follows a chi-squared distribution with one degree of
freedom less than there are bins, n and m being the sizes of the runs. `chance` is the value that is exceeded once in a thousand.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

MOST_BINS = 10
"""Of a feature with an order: as many as a quantile is usually cut into."""
_RARE_PERCENT = 1
"""Bins with less than this in both runs are one bin together: there is too little in each to be compared."""
_ONE_IN_A_THOUSAND = 3.0902
"""How many standard deviations above its mean a normal variable is once in a thousand."""


class Difference(NamedTuple):
    """Between two distributions."""

    psi: float
    chance: float
    """What it exceeds once in a thousand pairs of runs that are alike."""


def difference(pairs: Iterable[tuple[int, int]]) -> Difference | None:
    """Between two distributions, from the counts of each bin in the reference and in the run; None when either has nothing."""
    bins = [pair for pair in pairs if any(pair)]
    before, now = (sum(counts) for counts in zip(*bins, strict=True)) if bins else (0, 0)
    if not before or not now:
        return None
    shares = [((p + 0.5) / (before + len(bins) / 2), (q + 0.5) / (now + len(bins) / 2)) for p, q in bins]
    psi = sum((q - p) * math.log(q / p) for p, q in shares)
    return Difference(psi, _chi_squared(len(bins) - 1) * (1 / before + 1 / now))


def _chi_squared(freedom: int) -> float:
    """The value that is exceeded once in a thousand, as Wilson and Hilferty approximate it."""
    if not freedom:
        return 0.0
    spread = 2 / (9 * freedom)
    root: float = 1 - spread + _ONE_IN_A_THOUSAND * math.sqrt(spread)
    return freedom * root**3


def by_kind(before: Mapping[str, int], now: Mapping[str, int]) -> list[tuple[int, int]]:
    """The bins of a feature whose values have no order: one for each, and one for all that are rare in both runs."""
    totals = (sum(before.values()), sum(now.values()))
    bins: dict[str | None, list[int]] = {}
    for kind in sorted({*before, *now}):
        pair = (before.get(kind, 0), now.get(kind, 0))
        rare = all(100 * count < _RARE_PERCENT * total for count, total in zip(pair, totals, strict=True))
        found = bins.setdefault(None if rare else kind, [0, 0])
        found[0] += pair[0]
        found[1] += pair[1]
    return [(p, q) for p, q in bins.values()]


def by_rank(before: Mapping[str, int], now: Mapping[str, int]) -> list[tuple[int, int]]:
    """The bins of a feature whose values are whole numbers: neighbours are put together until each bin has a tenth of the reference."""
    enough = sum(before.values()) / MOST_BINS
    bins, open_ = [], [0, 0]
    for value in sorted(map(int, {*before, *now})):
        open_[0] += before.get(str(value), 0)
        open_[1] += now.get(str(value), 0)
        if open_[0] >= enough:
            bins.append((open_[0], open_[1]))
            open_ = [0, 0]
    return [*bins, (open_[0], open_[1])] if any(open_) else bins
