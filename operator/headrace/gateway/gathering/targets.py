"""What the windows of a route become, as the route itself sees it: something to give them to, and to ask whether they are answered."""

from __future__ import annotations

from typing import Protocol

from headrace.api.asking import ClosedWindow, RequestRoute
from headrace.api.gateway import ServedModel
from headrace.core.asking.batches import window_work
from headrace.core.openai.errors import ApiError
from headrace.gateway.gathering.answers import Answers
from headrace.gateway.places.place import WindowsPlace


class Target(Protocol):
    """Who works on windows. Each step may be done again."""

    def has_room(self, open_windows: int) -> bool:
        """Whether another window may close, while so many are open."""

    async def create(self, window: ClosedWindow) -> None:
        """Make what it becomes, durably, unless it is there. Not done again once the window is known to be submitted.

        What would be refused again is answered so, and is nothing to make.
        """

    async def take_up(self, window: ClosedWindow, *, again: bool) -> None:
        """See to a window that was submitted; `again`: maybe long ago, by this process or an earlier one."""

    async def collect(self, window: ClosedWindow) -> bool:
        """Answer what there is to answer; says whether all of its requests are. Raises `StateError` when that cannot be told."""


class ObjectTarget:
    """A batch or a fan-out for each window."""

    def __init__(self, route: RequestRoute, served: ServedModel, place: WindowsPlace, answers: Answers) -> None:
        self._route, self._served, self._place, self._answers = route, served, place, answers

    def has_room(self, open_windows: int) -> bool:
        """As the route says."""
        return open_windows < self._route.max_open_batches

    async def create(self, window: ClosedWindow) -> None:
        """Create the object."""
        try:
            await self._place.create_window(window_work(window, self._place.namespace, self._route, self._served))
        except ApiError as error:
            await self._answers.refuse(window.members, error)

    async def take_up(self, window: ClosedWindow, *, again: bool) -> None:
        """Nothing: the place sees to its objects. One that is gone was deleted by somebody, and stays so."""

    async def collect(self, window: ClosedWindow) -> bool:
        """Answer the requests of a batch that is over, or gone."""
        work = await self._place.find_work(window.batch)
        if work is not None and (not work.status.finished or work.retry_asked):
            return False
        await self._answers.give(window, work)
        return True
