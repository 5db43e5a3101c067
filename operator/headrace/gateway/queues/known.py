"""What is known of single requests: where they are, and how they are shown."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import aclosing

from headrace.api.asking import RequestRecord
from headrace.api.base import JsonObject
from headrace.core.asking.batches import outcome_of
from headrace.core.asking.requests import queued_object, record_object, route_name
from headrace.core.openai.errors import ApiError, no_such
from headrace.core.openai.files import files_of
from headrace.core.openai.ids import Part, batch_id
from headrace.gateway.places.lines import lines
from headrace.gateway.places.place import ResultsPlace
from headrace.gateway.queues.store import InQueue, Kept, Store


class Known:
    """Finds requests by their ids."""

    def __init__(self, store: Store, place: ResultsPlace, routes: Collection[str]) -> None:
        """`routes`: names of those that are served."""
        self.routes = routes
        self._store, self._place = store, place

    async def find(self, wanted: str) -> InQueue | Kept:
        """What is known of a request. Raises `ApiError` when that is nothing."""
        found = await self.look(wanted)
        if found is None:
            raise no_such("Request", wanted[:80])
        return found

    async def look(self, wanted: str) -> InQueue | Kept | None:
        """Its record, else its place in the queue. It may get the one and lose the other between two looks, so the record has a third."""
        name = route_name(wanted)
        if name is None or name not in self.routes:
            return None
        return (
            await self._store.record(wanted) or await self._store.find(name, wanted) or await self._store.record(wanted)
        )

    async def shown(self, found: InQueue | Kept) -> JsonObject:
        """The object of a request. Raises `ApiError` when its response is gone."""
        if isinstance(found, InQueue):
            return queued_object(found.request, found.position)
        record = found.record
        if record.in_batch:
            record = record.model_copy(update={"response": await self._response(record)})
        return record_object(record)

    async def _response(self, record: RequestRecord) -> JsonObject:
        """The response where its batch has left it. Raises `ApiError` when that is gone."""
        assert record.batch is not None
        batch = await self._place.find_work(record.batch)
        if batch is not None and Part.OUTPUT in files_of(batch):
            async with aclosing(lines(await self._place.results(batch, Part.OUTPUT))) as found:
                async for line in found:
                    name, outcome = outcome_of(line)
                    if name == record.id and outcome.response is not None:
                        return outcome.response
        message = f"the response was too large to be kept apart from {batch_id(record.batch)}, whose output is gone"
        raise ApiError(410, message, "id", "response_gone")
