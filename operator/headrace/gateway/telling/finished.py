"""The requests that have ended last, of each tenant: for people who look, so it is enough to know what has come by."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from cachetools import LRUCache

from headrace.api.asking import RequestRecord
from headrace.core.statuspage import MOST_ROWS, Finished

_MOST_TENANTS = 1000


class FinishedRequests:
    """A few of each of those tenants who have had any of late."""

    def __init__(self) -> None:
        self._known: LRUCache[str, deque[Finished]] = LRUCache(_MOST_TENANTS)

    def note(self, namespace: str, record: RequestRecord) -> None:
        """One has ended. Its answer is not kept."""
        if namespace not in self._known:
            self._known[namespace] = deque(maxlen=MOST_ROWS)
        self._known[namespace].appendleft(Finished(record.id, record.state, record.accepted, record.ended or 0))

    def of(self, namespace: str) -> Sequence[Finished]:
        """Those of a tenant, the last first."""
        return [*self._known.get(namespace, ())]
