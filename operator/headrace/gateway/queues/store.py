"""The port between single requests and where they are kept: a queue for each route of each tenant, and what is known of what has left it.

What returns is durable. When a write raises `StoreAway` nobody knows whether it was done: whoever has asked begins again from what is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from headrace.api.asking import ClosedWindow, KnownKey, QueuedRequest, RequestRecord, RequestRoute


class StoreAway(Exception):
    """The store cannot be reached, or does not answer."""


class StoreFull(StoreAway):
    """The store has no room for anything more; what it has it keeps."""


class QueueFull(Exception):
    """There is no room in the queue: the request was not taken."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request that was taken out of its queue for a while: unless it is forgotten, it comes again."""

    request: QueuedRequest
    token: object
    """What the store knows it by."""


@dataclass(frozen=True, slots=True)
class InQueue:
    """A request that waits."""

    request: QueuedRequest
    position: int
    """From 1. Those before it that were cancelled are counted until their turn comes."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A record, and the version of it that was read."""

    record: RequestRecord
    revision: int
    """Greater than those of all records that were written before, of whatever request."""
    size: int = 0
    """Bytes, roughly."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the order in which records are written."""

    epoch: str
    """Names the store: another one has another order."""
    revision: int


@dataclass(frozen=True, slots=True)
class Change:
    """A record that was written."""

    namespace: str
    """Whose it is."""
    kept: Kept


@dataclass(frozen=True, slots=True)
class Changes:
    """What was written, in order. A record that was written again since is left out."""

    records: Sequence[Change]
    revision: int
    """All up to this one are among them."""


class Lane(NamedTuple):
    """A route of one tenant."""

    namespace: str
    route: str


class Waiting(NamedTuple):
    """What there is in a queue."""

    requests: int
    since: int | None
    """When the first of them was accepted, in milliseconds since the epoch; None where it has just gone."""


class Store(Protocol):
    """Where the requests of one tenant are kept, and nothing of any other. All methods raise `StoreAway`."""

    async def open_route(self, route: RequestRoute) -> None:
        """Have a queue for the route, and deliver all that is in it, from the first on, whoever has had it before."""

    async def add(self, route: RequestRoute, request: QueuedRequest) -> None:
        """Put a request into the queue of the route; the same one is put there once. Raises `QueueFull`."""

    async def find(self, route: str, request_id: str) -> InQueue | None:
        """The request, while it is in the queue."""

    async def depth(self, route: str) -> int:
        """How many requests wait in the queue, those included that were taken out of it for a while."""

    async def take(self, route: str, most: int, milliseconds: int) -> Sequence[Delivery]:
        """At most so many requests, the oldest first; waits so long for the first of them."""

    async def forget(self, delivery: Delivery) -> None:
        """Take a request out of its queue for good."""

    async def record(self, request_id: str) -> Kept | None:
        """What is known of a request that has left the queue."""

    async def write_record(self, record: RequestRecord, revision: int) -> bool:
        """Replace the version that was read (0: there was none); False when it is not the last one any more."""

    async def windows(self, route: str) -> Sequence[ClosedWindow]:
        """All windows of a route whose requests are not answered yet."""

    async def window(self, batch: str) -> ClosedWindow | None:
        """The window that has become that batch."""

    async def write_window(self, window: ClosedWindow) -> None:
        """Write it, whether or not it was there. Only the one who serves its route does."""

    async def drop_window(self, batch: str) -> None:
        """All requests of the window are answered."""

    async def add_letter(self, request_id: str) -> None:
        """Note that a request is about to end unanswered; its record says whether it has."""

    async def letters(self) -> Sequence[str]:
        """The ids of all such requests, in the order in which they were noted first."""

    async def drop_letter(self, request_id: str) -> None:
        """Nobody need look at it any more."""

    async def remember_key(self, name: str, key: KnownKey) -> KnownKey:
        """What the key stands for: what was written first, for a day."""


class Secrets(Protocol):
    """What all gateways of a store know, and nobody else."""

    async def secret(self, name: str) -> str:
        """What is kept under that name: the first time it is asked for it is made up. Raises `StoreAway`."""


class Stores(Protocol):
    """Where the requests of all tenants are kept. All methods but `of` raise `StoreAway`."""

    def of(self, namespace: str) -> Store:
        """The store of the tenant who has that namespace."""

    async def lanes(self) -> Collection[Lane]:
        """Those in which there is anything: in the queue, or in windows."""

    async def waiting(self) -> Mapping[Lane, Waiting]:
        """What waits in each queue that is not empty."""

    async def position(self) -> Position:
        """That of the record that was written last."""

    async def changes(self, after: int, milliseconds: int) -> Changes:
        """What was written after a revision; waits so long for the first. One reader at a time goes through them."""
