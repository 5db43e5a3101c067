"""From what a batch has left to the answers of the requests in it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from headrace.api.asking import ClosedWindow, QueuedRequest, RequestError, RequestState
from headrace.api.base import JsonObject
from headrace.api.kinds import OurObject
from headrace.core.asking.batches import outcome_of, outcome_without_line
from headrace.core.asking.life import Outcome, ended, fitted, is_dead
from headrace.core.openai.errors import ApiError
from headrace.core.openai.files import files_of
from headrace.gateway.clocks import Clock
from headrace.gateway.places.lines import lines
from headrace.gateway.places.place import ResultsPlace
from headrace.gateway.queues.store import Store
from headrace.gateway.together import AT_ONCE, together
from headrace.gateway.watch import UNWATCHED, Watch


class Answers:
    """Writes down what has become of requests; what is written down already stays as it is."""

    def __init__(self, store: Store, place: ResultsPlace, clock: Clock, watch: Watch = UNWATCHED) -> None:
        self._store, self._place, self._clock, self._watch = store, place, clock, watch

    async def give(self, window: ClosedWindow, batch: OurObject | None) -> None:
        """Answer all requests of a window whose batch is over; None for one that is gone."""
        asked = {member.id: member.body for member in window.members}
        waiting = {*asked}
        if batch is not None:
            async with aclosing(self._outcomes(batch)) as groups:
                async for group in groups:
                    await together(self.answer(name, outcome, asked.get(name)) for name, outcome in group)
                    waiting -= {name for name, _ in group}
        lost = outcome_without_line(batch)
        await together(self.answer(name, lost, asked[name]) for name in sorted(waiting))

    async def refuse(self, members: Sequence[QueuedRequest], error: ApiError) -> None:
        """Answer requests that no batch could be made of."""
        refused = Outcome(RequestState.FAILED, error=RequestError(code=error.code or "refused", message=error.message))
        await together(self.answer(member.id, refused, member.body) for member in members)

    async def _outcomes(self, batch: OurObject) -> AsyncGenerator[list[tuple[str, Outcome]], None]:
        """What the batch says of its requests, a few at a time."""
        group: list[tuple[str, Outcome]] = []
        for part in files_of(batch):
            async with aclosing(lines(await self._place.results(batch, part))) as found:
                async for line in found:
                    group.append(outcome_of(line))
                    if len(group) == AT_ONCE:
                        yield group
                        group = []
        yield group

    async def answer(self, request_id: str, outcome: Outcome, asked: JsonObject | None) -> None:
        """Write the outcome down, unless the request has ended. The letter comes first: a dead request without one would be lost."""
        while (kept := await self._store.record(request_id)) is not None:
            changed = ended(kept.record, outcome, self._clock.now(), asked)
            if changed is None:
                return
            changed = fitted(changed, asked)
            if is_dead(changed.state):
                await self._store.add_letter(request_id)
            if await self._store.write_record(changed, kept.revision):
                self._watch.ended(changed)
                return
