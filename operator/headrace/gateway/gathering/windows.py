"""One route at work: requests gather, a window closes and is given to whoever answers it, such as a batch, until all are answered.

Each step can die and be done again. A window is written down before anything is done about it, under the name that its batch will have;
from then on its requests are its own, and whoever finds it goes on with it: records that say so, the batch, the answers. A request that
comes out of the queue once more is found to have a record, or to be in a window. So every request is in one batch, and answered once.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from headrace.api.asking import ClosedWindow, QueuedRequest, RequestRoute
from headrace.api.gateway import ServedModel
from headrace.core.asking.life import begun, belongs, has_ended, is_dead
from headrace.core.asking.pressure import Left, recent
from headrace.core.asking.requests import record_bytes
from headrace.core.asking.windows import Gathered, closes_at, closing
from headrace.gateway.clocks import Clock
from headrace.gateway.endless import end_if_cancelled, keep_on
from headrace.gateway.gathering.targets import Target
from headrace.gateway.places.place import PlaceAway
from headrace.gateway.queues.store import Delivery, Store
from headrace.gateway.together import together
from headrace.gateway.watch import UNWATCHED, Watch
from headrace.shells.local.state import StateError

logger = logging.getLogger(__name__)

LOOK_MILLISECONDS = 100
"""How often the batches that are under way are looked at."""
RESTS_AFTER_MILLISECONDS = 10_000
"""When a route is left alone for which nothing has come."""
UNREADABLE_MILLISECONDS = 10_000
"""How long a batch is left alone that cannot be read."""
AWAY_MILLISECONDS = 1000
"""How long while the place is away and has not said for how long."""


class _Held(NamedTuple):
    """A request that has come out of the queue, and what counts of it."""

    delivery: Delivery
    gathered: Gathered


class RouteWindows:
    """The windows of one route. One process at a time may have them."""

    def __init__(
        self,
        route: RequestRoute,
        served: ServedModel,
        store: Store,
        target: Target,
        clock: Clock,
        watch: Watch = UNWATCHED,
    ) -> None:
        self._route, self._served, self._store, self._target, self._clock = route, served, store, target, clock
        self._watch = watch
        self._held: dict[str, _Held] = {}
        """Requests that have come out of the queue and are in no window, by id, the oldest first."""
        self._open: dict[str, ClosedWindow] = {}
        """Windows whose requests are not answered, by the name of their batch."""
        self._not_before: dict[str, int] = {}
        """Until when a batch is left alone, by its name."""
        self.left: list[Left] = []
        """What has left the queue of late."""
        self._busy_at = clock.now()
        """When there was something last."""
        self._told = 0
        """How many windows were told of that are at work."""

    def stay(self) -> None:
        """Something has come, or may have: go on looking."""
        self._busy_at = self._clock.now()

    async def run(self) -> None:
        """Serve the route until nothing has come for a while. After a failure all that is known is read anew."""
        try:
            await keep_on(f"route {self._route.name}", self._serve, self._clock)
        finally:  # whoever goes on with them tells of them
            self._tell_of(0)

    async def begin(self) -> None:
        """Go on where anybody has stopped."""
        self._held = {}
        self._not_before = {}
        self._open = {window.batch: window for window in await self._store.windows(self._route.name)}
        for window in [*self._open.values()]:
            await self._attend(window, self._advance)
        self._tell_of(len(self._open))
        await self._store.open_route(self._route)

    async def step(self) -> None:
        """Wait a moment for requests, then do what there is to do."""
        await self._gather()
        await self._close()
        for window in [*self._open.values()]:
            if self._clock.now() >= self._not_before.get(window.batch, 0):
                await self._attend(window, self._look_at)
        self._tell_of(len(self._open))

    @property
    def idle(self) -> bool:
        """Whether nothing is held and nothing is under way."""
        return not self._held and not self._open

    async def _serve(self) -> None:
        await self.begin()
        while self._clock.now() - self._busy_at < RESTS_AFTER_MILLISECONDS:
            await self.step()
            end_if_cancelled()
            if not self.idle:
                self.stay()

    async def _gather(self) -> None:
        room = self._route.window.max_batch_size - len(self._held)
        if not room or not self._target.has_room(len(self._open)):
            await self._clock.rest(LOOK_MILLISECONDS)
            return
        if not self._held:
            await self._take(1, self._patience())
            if not self._held or not self._is_late():
                return
        if room := self._route.window.max_batch_size - len(self._held):
            await self._take(room, self._patience())

    async def _take(self, most: int, milliseconds: int) -> None:
        """Take so many out of the queue; waits for the first."""
        in_windows = {member.id for window in self._open.values() for member in window.members}
        for delivery in await self._store.take(self._route.name, most, milliseconds):
            if delivery.request.id in in_windows:
                await self._store.forget(delivery)
            else:
                self._hold(delivery)

    def _hold(self, delivery: Delivery) -> None:
        """Let it wait for others; one that comes once more keeps its place."""
        request = delivery.request
        since = min(request.accepted, self._clock.now())  # by a clock that was set back it is from the future
        size = record_bytes(request, self._served.endpoint)
        self._held[request.id] = _Held(delivery, Gathered(since, request.tokens, size))

    def _is_late(self) -> bool:
        """Whether the first has waited long enough already: the route had no room for it, and others may be behind it."""
        end = closes_at(self._gathered(), self._route.window)
        return end is not None and end <= self._clock.now()

    def _patience(self) -> int:
        """How long to wait for more, in milliseconds: not past the end of the window.

        After that just as long as the queue may need to answer: a window that comes late takes along who waits already.
        """
        if self._is_late():
            return max(1, min(LOOK_MILLISECONDS, self._route.window.max_wait_milliseconds))
        end = closes_at(self._gathered(), self._route.window)
        return max(1, min(LOOK_MILLISECONDS, end - self._clock.now()) if end is not None else LOOK_MILLISECONDS)

    def _gathered(self) -> list[Gathered]:
        return [held.gathered for held in self._held.values()]

    async def _close(self) -> None:
        """Make a window of what has gathered, if it is time."""
        if not self._target.has_room(len(self._open)):
            return
        count = closing(self._gathered(), self._route.window, self._clock.now())
        if not count:
            return
        taken = [held.delivery for held in self._held.values()][:count]
        name = f"{self._route.name}-{secrets.token_hex(5)}"
        members = tuple(delivery.request for delivery in taken)
        window = ClosedWindow(batch=name, route=self._route.name, closed=self._clock.now(), members=members)
        await self._store.write_window(window)
        self._open[name] = window
        await self._attend(window, self._advance)
        await together(self._store.forget(delivery) for delivery in taken)
        for delivery in taken:
            del self._held[delivery.request.id]
        self.left = [*recent(self.left, self._clock.now()), Left(self._clock.now(), count)]
        self._watch.closed(self._route, window)

    async def _advance(self, window: ClosedWindow) -> None:
        """See to it that a window is worked on, however much of that is done."""
        if not (again := window.submitted):
            claims = await together(self._claim(member, window.batch) for member in window.members)
            mine = [member for member, is_mine in zip(window.members, claims, strict=True) if is_mine]
            if not mine:  # all were cancelled, or came too late
                await self._drop(window)
                return
            window = window.model_copy(update={"members": tuple(mine), "submitted": True})
            await self._target.create(window)
            await self._store.write_window(window)
            self._open[window.batch] = window
        await self._target.take_up(window, again=again)

    async def _claim(self, request: QueuedRequest, batch: str) -> bool:
        """Write down that the batch is to answer the request; False when that is not for it to do."""
        record = begun(request, batch, self._route, self._clock.now())
        if is_dead(record.state):
            await self._store.add_letter(record.id)
        if not await self._store.write_record(record, 0):
            kept = await self._store.record(request.id)
            return kept is not None and belongs(kept.record, batch)
        if has_ended(record):
            self._watch.ended(record)
        return belongs(record, batch)

    async def _attend(self, window: ClosedWindow, step: Callable[[ClosedWindow], Awaitable[None]]) -> None:
        """Take a step with a window; one that cannot be made or read now does not keep the others waiting."""
        try:
            await step(window)
        except (StateError, PlaceAway) as error:
            self._not_before[window.batch] = self._clock.now() + _rest(error)
            logger.warning("route %s: %s: %s", self._route.name, window.batch, error)

    async def _look_at(self, window: ClosedWindow) -> None:
        """Do what there is to do about it."""
        if not window.submitted:
            await self._advance(window)
        elif await self._target.collect(window):
            await self._drop(window)

    def _tell_of(self, open_windows: int) -> None:
        if change := open_windows - self._told:
            self._told = open_windows
            self._watch.under_way(self._route.name, change)

    async def _drop(self, window: ClosedWindow) -> None:
        await self._store.drop_window(window.batch)
        self._open.pop(window.batch, None)
        self._not_before.pop(window.batch, None)


def _rest(error: StateError | PlaceAway) -> int:
    """How long to leave a window alone, in milliseconds."""
    if isinstance(error, StateError):
        return UNREADABLE_MILLISECONDS
    return AWAY_MILLISECONDS if error.retry_after is None else int(error.retry_after * 1000)
