"""A histogram of seconds that takes in a whole batch at once.

The records of a batch are submitted together and often come back together: then that is one observation of many records. Those of
the client library take one record at a time, each with two locks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from threading import Lock

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

_BOUNDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, float("inf"))
"""From a token of a small model to a long answer behind a full queue."""


class Latencies(Collector):
    """Counts of seconds in buckets. It is shown by another thread than the one that observes."""

    def __init__(self, name: str, meaning: str, registry: CollectorRegistry) -> None:
        self._name, self._meaning = name, meaning
        self._counts = [0] * len(_BOUNDS)
        self._sum = 0.0
        self._lock = Lock()
        registry.register(self)

    def observe(self, seconds: float, records: int = 1) -> None:
        """So many records have taken so long."""
        with self._lock:
            self._counts[bisect_left(_BOUNDS, seconds)] += records
            self._sum += seconds * records

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """What it is called, so that nothing else is."""
        return [HistogramMetricFamily(self._name, self._meaning)]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """What is shown."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        names = map(floatToGoString, _BOUNDS)
        buckets = list(zip(names, map(float, accumulate(counts)), strict=True))
        yield HistogramMetricFamily(self._name, self._meaning, buckets, total)
