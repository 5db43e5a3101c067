"""`/v1/requests`: from a body to the request that it means, and from what is known of a request to its object."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256

import orjson

from headrace.api.asking import QueuedRequest, RequestRecord, RequestRoute, RequestState
from headrace.api.base import FieldError, JsonObject
from headrace.api.content import MEDIA_TASKS
from headrace.api.gateway import ServedModel, ServedModels
from headrace.api.input import Input
from headrace.api.manifest import MAX_INLINE_BYTES
from headrace.api.model import Task
from headrace.api.records import RecordError, estimate_prompt_tokens, reader
from headrace.api.targets import AnsweredBy
from headrace.core.asking.batches import record_of
from headrace.core.openai.errors import ApiError, bad_request
from headrace.core.openai.ids import batch_id

_ID = re.compile(r"req_([a-z0-9](?:[-a-z0-9]{0,30}[a-z0-9])?)_[0-9a-f]{24}")
_ASKED_IN = {Task.CHAT: "messages", Task.COMPLETION: "prompt"} | dict.fromkeys((Task.EMBEDDING, *MEDIA_TASKS), "input")
"""The field of a body that holds what is asked, which tells the endpoints apart."""


def request_id(route: str, digits: str) -> str:
    """The id of a request; the route is in it, so that nothing else need be asked where it waits."""
    return f"req_{route}_{digits}"


def replay_id(dead: str) -> str:
    """The id of the request that asks again what a dead one has asked: always the same, so that it is asked again once."""
    return request_id(route_name(dead) or "", sha256(f"replay {dead}".encode()).hexdigest()[:24])


def route_name(wanted: str) -> str | None:
    """The route that an id names; None when it can be the id of no request."""
    found = _ID.fullmatch(wanted)
    return found[1] if found is not None else None


def route_of(body: JsonObject, routes: Sequence[RequestRoute], wanted: str | None) -> RequestRoute:
    """The route that is `wanted`, else the first one for the model and the endpoint of the body. Raises `ApiError`."""
    if wanted is not None:
        named = next((route for route in routes if route.name == wanted), None)
        if named is None:
            known = ", ".join(route.name for route in routes) or "none"
            raise ApiError(404, f"there is no route {wanted[:80]}; there are {known}", "route", "not_found")
        return named
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise bad_request("model must name the model that answers", "model", "missing_required_parameter")
    for_model = [route for route in routes if route.model == model]
    if not for_model:
        known = ", ".join(sorted({route.model for route in routes})) or "none"
        raise ApiError(404, f"there is no route to the model {model[:80]}; there are routes to {known}", "model")
    found = next((route for route in for_model if _ASKED_IN[route.task] in body), None)
    if found is None:
        fields = " or ".join(sorted({_ASKED_IN[route.task] for route in for_model}))
        raise bad_request(f"{fields} must be set: that is what {model[:80]} answers here", fields, "invalid_value")
    return found


def queued_request(name: str, body: JsonObject, served: ServedModel, now: int) -> QueuedRequest:
    """The request, which is good: no batch would be refused because of it. Raises `ApiError`."""
    line = orjson.dumps(record_of(name, served.endpoint, body), option=orjson.OPT_APPEND_NEWLINE)
    if len(line) > MAX_INLINE_BYTES:
        raise ApiError(
            413, f"too large: a request may have {MAX_INLINE_BYTES} bytes, not {len(line)}", None, "too_large"
        )
    try:
        read = reader(Input(inline=({},)), served.model)(line)
    except RecordError as error:
        param = error.param.removeprefix("body.") if error.param is not None else None
        raise bad_request(error.message.replace("body.", ""), param, error.code) from error
    return QueuedRequest(id=name, accepted=now, tokens=estimate_prompt_tokens(read.body), body=body)


def record_bytes(request: QueuedRequest, endpoint: str | None) -> int:
    """How much of a batch a request takes up."""
    return len(orjson.dumps(record_of(request.id, endpoint, request.body))) + 1


def queued_object(request: QueuedRequest, position: int | None = None) -> JsonObject:
    """The object of a request in the queue; the first has position 1, and None is for where nobody has looked."""
    return {**_object(request.id, request.accepted, RequestState.QUEUED), "position": position}


def record_object(record: RequestRecord) -> JsonObject:
    """The object of a request that has left the queue."""
    return {
        **_object(record.id, record.accepted, record.state),
        **_answering(record),
        "completed_at": record.ended // 1000 if record.ended is not None else None,
        "response": record.response,
        "error": record.error.model_dump() if record.error is not None else None,
        **({"headrace": record.about} if record.about is not None else {}),
    }


def _answering(record: RequestRecord) -> JsonObject:
    """The names of what answers it, in the words of whoever looks for that."""
    if record.batch is None or record.answered_by == AnsweredBy.WARM_POOL:
        return {}
    if record.answered_by == AnsweredBy.FAN_OUT_JOB:
        return {"fan_out_job": record.batch}
    return {"batch_id": batch_id(record.batch)}


def _object(name: str, accepted: int, state: RequestState) -> JsonObject:
    return {
        "id": name,
        "object": "request",
        "route": route_name(name),
        "status": state.value,
        "position": None,
        "batch_id": None,
        "created_at": accepted // 1000,
        "completed_at": None,
        "response": None,
        "error": None,
    }


def route_object(route: RequestRoute, queued: int, pool: JsonObject | None) -> JsonObject:
    """The object of a route on whose queue so many requests are; `pool`: how its workers are, where it has some."""
    return {
        "name": route.name,
        "object": "route",
        "model": route.model,
        "task": route.task.value,
        "target": route.target.kind.value,
        "queued": queued,
        "pool": pool,
    }


def route_faults(models: ServedModels) -> list[FieldError]:
    """Routes that lead nowhere, and names that would mean two of them."""
    faults, seen = [], set()
    for index, route in enumerate(models.routes):
        if models.answering(route) is None:
            message = f"there is no model {route.model} with the task {route.task} in models"
            faults.append(FieldError(f"routes[{index}].model", message))
        if route.name in seen:
            faults.append(FieldError(f"routes[{index}].name", f"there is another route {route.name} before"))
        seen.add(route.name)
    return faults
