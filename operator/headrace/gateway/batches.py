"""`/v1/batches`: InferenceBatches as OpenAI's clients know them."""

from __future__ import annotations

import secrets

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from headrace.api.inferencebatch import InferenceBatch
from headrace.api.tracing import TraceContext
from headrace.core.openai.batches import batch_object
from headrace.core.openai.errors import bad_request, no_input, no_such
from headrace.core.openai.ids import NAME_DIGITS, batch_id, batch_name, is_uploaded, name_for_key
from headrace.core.openai.pages import page, page_object, window
from headrace.core.openai.request import Destination, batch_request, new_batch, served_model
from headrace.gateway.bodies import json_body
from headrace.gateway.limits import Limits
from headrace.gateway.place import Place

_MOST_LISTED = 100
_LISTED = 20
_KEY_CHARACTERS = 255


class Batches:
    """The answers to requests about batches."""

    def __init__(self, place: Place, limits: Limits) -> None:
        self._place, self._limits = place, limits

    async def create(self, request: Request) -> Response:
        """`POST /v1/batches`."""
        body = await json_body(request, self._limits.patience_seconds)
        asked = batch_request(body, self._place.models)
        file = await self._place.find_upload(asked.input_file_id) if is_uploaded(asked.input_file_id) else None
        if file is None:
            raise no_input(asked.input_file_id)
        served = served_model(asked, await self._place.first_line(file), self._place.models)
        context = TraceContext.parse(request.headers.get("traceparent", ""))
        where = Destination(self._place.namespace, _name(request), self._place.uri(file.id), context)
        batch = await self._place.create_batch(new_batch(asked, served, where))
        return JSONResponse(batch_object(batch))

    async def list_page(self, request: Request) -> Response:
        """`GET /v1/batches`."""
        asked = window(request.query_params, most=_MOST_LISTED, default=_LISTED)
        found = page(await self._place.batches(), asked, lambda batch: batch_id(batch.metadata.name))
        return JSONResponse(page_object([batch_object(one) for one in found.items], has_more=found.has_more))

    async def retrieve(self, request: Request) -> Response:
        """`GET /v1/batches/{batch_id}`."""
        return JSONResponse(batch_object(await self._find(request.path_params["batch_id"])))

    async def cancel(self, request: Request) -> Response:
        """`POST /v1/batches/{batch_id}/cancel`."""
        batch = await self._find(request.path_params["batch_id"])
        return JSONResponse(batch_object(await self._place.cancel_batch(batch.metadata.name)))

    async def _find(self, wanted: str) -> InferenceBatch:
        """The batch of that id. Raises `ApiError` when there is none."""
        name = batch_name(wanted)
        found = await self._place.find_batch(name) if name is not None else None
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
