"""Who waits in each LocalQueue, in Kueue's order. A position costs as much as looking a word up in a dictionary of that length.

A LocalQueue with fair sharing of its own (AdmissionFairSharing) may take another first; the position is for people.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict

from headrace.core.kueue.workload import Turn, Workload

Place = tuple[str, str]
"""A LocalQueue: namespace and name."""


class Lines:
    """The lines of all LocalQueues."""

    def __init__(self) -> None:
        self._lines: defaultdict[Place, list[Turn]] = defaultdict(list)
        self._turns: dict[tuple[str, str], tuple[Place, Turn]] = {}

    def put(self, namespace: str, workload: Workload) -> None:
        """A Workload as it is now."""
        self.remove(namespace, workload.name)
        if workload.waits:
            place = (namespace, workload.queue)
            self._turns[namespace, workload.name] = (place, workload.turn)
            insort(self._lines[place], workload.turn)

    def remove(self, namespace: str, name: str) -> None:
        """A Workload is gone; one that does not wait may be removed as well."""
        place, turn = self._turns.pop((namespace, name), (None, None))
        if place is None or turn is None:
            return
        line = self._lines[place]
        del line[bisect_left(line, turn)]
        if not line:
            del self._lines[place]

    def position(self, namespace: str, name: str) -> int | None:
        """Where a Workload stands, 1 is next; None when it does not wait."""
        place, turn = self._turns.get((namespace, name), (None, None))
        return None if place is None or turn is None else bisect_left(self._lines[place], turn) + 1
