"""What there is for the single requests of one tenant, and nothing of any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headrace.api.gateway import ServedModels
from headrace.gateway.clocks import Clock
from headrace.gateway.known import Known
from headrace.gateway.place import Places, RequestsPlace
from headrace.gateway.queueing import Queue, RouteQueue
from headrace.gateway.store import Store


@dataclass(frozen=True, slots=True)
class Room:
    """That of one tenant."""

    store: Store
    place: RequestsPlace
    known: Known
    queue: Queue


class Rooms:
    """Those of all tenants."""

    def __init__(self, places: Places, store: Store, queues: Mapping[str, RouteQueue], clock: Clock) -> None:
        """`queues`: those of all routes, by name."""
        self.models: ServedModels = places.models
        self._places, self._store, self._queues, self._clock = places, store, queues, clock

    def of(self, namespace: str) -> Room:
        """The room of the tenant who has that namespace."""
        place = self._places.of(namespace)
        known = Known(self._store, place, self._queues)
        return Room(self._store, place, known, Queue(self._store, self._queues, self._clock))
