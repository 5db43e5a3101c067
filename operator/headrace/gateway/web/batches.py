"""`/v1/batches`: InferenceBatches as OpenAI's clients know them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from headrace.api.inferencebatch import InferenceBatch
from headrace.api.tenancy import TenantLimits
from headrace.api.tracing import TraceContext
from headrace.core.httpapi import batchwise as operations
from headrace.core.openai.batches import batch_object
from headrace.core.openai.errors import bad_request, no_input, no_such
from headrace.core.openai.ids import NAME_DIGITS, batch_id, batch_name, is_uploaded, name_for_key
from headrace.core.openai.pages import page, page_object, window
from headrace.core.openai.request import Destination, batch_request, made_by_request, new_batch, served_model
from headrace.core.tenancy.bounds import check_open_batches
from headrace.gateway.places.place import Place, Places
from headrace.gateway.tenants.entrance import tenant_of
from headrace.gateway.web.bodies import json_body
from headrace.gateway.web.limits import Limits
from headrace.gateway.web.routing import Answered, Served

_KEY_CHARACTERS = 255


class Batches:
    """The answers to requests about batches."""

    def __init__(self, places: Places, limits: Limits) -> None:
        self._places, self._limits = places, limits
        self._making: dict[str, asyncio.Lock] = {}
        """Held while a batch is made in a namespace."""

    @property
    def served(self) -> Sequence[Served]:
        """What is answered here."""
        return [
            Answered(operations.LIST_BATCHES, self.list_page),
            Answered(operations.CREATE_BATCH, self.create),
            Answered(operations.RETRIEVE_BATCH, self.retrieve),
            Answered(operations.CANCEL_BATCH, self.cancel),
        ]

    async def create(self, request: Request) -> Response:
        """`POST /v1/batches`."""
        body = await json_body(request, self._limits.patience_seconds)
        place = self._place(request)
        asked = batch_request(body, place.models)
        file = await place.find_upload(asked.input_file_id) if is_uploaded(asked.input_file_id) else None
        if file is None:
            raise no_input(asked.input_file_id)
        served = served_model(asked, await place.first_line(file), place.models)
        context = TraceContext.parse(request.headers.get("traceparent", ""))
        where = Destination(place.namespace, _name(request), place.uri(file.id), context)
        new = new_batch(asked, served, where)
        limits = tenant_of(request).limits
        batch = await (place.create_batch(new) if limits is None else self._created(place, new, limits))
        return JSONResponse(batch_object(batch))

    async def list_page(self, request: Request) -> Response:
        """`GET /v1/batches`."""
        asked = window(request.query_params, most=operations.MOST_BATCHES, default=operations.BATCHES_LISTED)
        found = page(await self._place(request).batches(), asked, lambda batch: batch_id(batch.metadata.name))
        return JSONResponse(page_object([batch_object(one) for one in found.items], has_more=found.has_more))

    async def retrieve(self, request: Request) -> Response:
        """`GET /v1/batches/{batch_id}`."""
        return JSONResponse(batch_object(await _find(self._place(request), request.path_params["batch_id"])))

    async def cancel(self, request: Request) -> Response:
        """`POST /v1/batches/{batch_id}/cancel`."""
        place = self._place(request)
        batch = await _find(place, request.path_params["batch_id"])
        return JSONResponse(batch_object(await place.cancel_batch(batch.metadata.name)))

    async def _created(self, place: Place, new: InferenceBatch, limits: TenantLimits) -> InferenceBatch:
        """The batch, when its tenant may have it: those of one tenant are made one after the other. Raises `ApiError`."""
        async with self._making.setdefault(place.namespace, asyncio.Lock()):
            if await place.find_batch(new.metadata.name) is None:
                unfinished = [one for one in await place.batches() if made_by_request(one) and not one.status.finished]
                check_open_batches(len(unfinished), limits)
            return await place.create_batch(new)

    def _place(self, request: Request) -> Place:
        return self._places.of(tenant_of(request).namespace)


async def _find(place: Place, wanted: str) -> InferenceBatch:
    """The batch of that id. Raises `ApiError` when there is none."""
    name = batch_name(wanted)
    found = await place.find_batch(name) if name is not None else None
    if found is None:
        raise no_such("Batch", wanted[:80])
    return found


def _name(request: Request) -> str:
    """The name of the batch that a request makes: the same for the same Idempotency-Key."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return secrets.token_hex(NAME_DIGITS // 2)
    if not 0 < len(key) <= _KEY_CHARACTERS:
        raise bad_request(f"Idempotency-Key must have 1 to {_KEY_CHARACTERS} characters", "Idempotency-Key")
    return name_for_key(key)
