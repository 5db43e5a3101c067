"""What there is for the single requests of one tenant, and nothing of any other."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.api.gateway import ServedModels
from headrace.gateway.clocks import Clock
from headrace.gateway.places.place import Places, RequestsPlace
from headrace.gateway.queues.known import Known
from headrace.gateway.queues.queueing import Queue, Takers
from headrace.gateway.queues.store import Store, Stores


@dataclass(frozen=True, slots=True)
class Room:
    """That of one tenant."""

    namespace: str
    store: Store
    place: RequestsPlace
    known: Known
    queue: Queue


class Rooms:
    """Those of all tenants."""

    def __init__(self, places: Places, stores: Stores, takers: Takers, clock: Clock) -> None:
        self._places, self._stores, self._takers, self._clock = places, stores, takers, clock
        self._routes = frozenset(route.name for route in places.models.routes)

    @property
    def models(self) -> ServedModels:
        """What is served."""
        return self._places.models

    def of(self, namespace: str) -> Room:
        """The room of the tenant who has that namespace."""
        store, place = self._stores.of(namespace), self._places.of(namespace)
        queue = Queue(namespace, store, self._takers, self._clock)
        return Room(namespace, store, place, Known(store, place, self._routes), queue)
