"""Single requests: accepting them, telling of them, and asking again those that have died."""

from __future__ import annotations

from headrace.api.answers import (
    DeadLetterPage,
    PartialEvent,
    RefusalEvent,
    RequestEvent,
    RequestObject,
    RouteList,
    ServerSentEvent,
)
from headrace.api.asking import StreamMessage
from headrace.api.gateway import AskedRequest
from headrace.core.httpapi.operation import EVENTS, Answer, Body, Operation, Parameter, Tag
from headrace.core.httpapi.parameters import AFTER, ID, KEY, ORDER, REQUEST, TEXT, TRACEPARENT, limit

MOST_LETTERS, LETTERS_LISTED = 1000, 100
_STREAMED = (
    Parameter("id", "query", "Ids of requests, each as `id=…`.", {"type": "array", "items": ID, "maxItems": 1000}),
    Parameter("after", "query", "The token of the last event that was heard.", TEXT),
)

CREATE_REQUEST = Operation(
    "createRequest",
    "POST",
    "/v1/requests",
    Tag.REQUESTS,
    "Accepts a request, which is answered once its batch is.",
    (
        Answer(202, "It is accepted, and will not be lost.", RequestObject, headers=("Location",)),
        Answer(200, "It was accepted before, under the same key.", RequestObject, headers=("Location",)),
    ),
    (400, 404, 408, 409, 410, 413, 415, 429, 503),
    (
        Parameter(
            "route", "query", "The route that it takes; by default the first one for its model and its endpoint.", TEXT
        ),
        KEY,
        TRACEPARENT,
        Parameter(
            "Headrace-Webhook", "header", "URL that is called when it has ended.", {"type": "string", "format": "uri"}
        ),
    ),
    Body(AskedRequest),
)
RETRIEVE_REQUEST = Operation(
    "retrieveRequest",
    "GET",
    "/v1/requests/{request_id}",
    Tag.REQUESTS,
    "A request as it stands, with its answer once there is one.",
    (Answer(200, "The request.", RequestObject),),
    (404, 410, 503),
    (REQUEST,),
)
CANCEL_REQUEST = Operation(
    "cancelRequest",
    "DELETE",
    "/v1/requests/{request_id}",
    Tag.REQUESTS,
    "Nobody wants an answer any more.",
    (Answer(200, "It is cancelled.", RequestObject),),
    (404, 409, 410, 503),
    (REQUEST,),
)
STREAM_EVENTS = Operation(
    "streamEvents",
    "GET",
    "/v1/stream",
    Tag.REQUESTS,
    "Tells when requests begin and end, and how answers grow in a warm pool, as Server-Sent Events, until all have ended.",
    (
        Answer(200, "The events.", ServerSentEvent, EVENTS),
        Answer(204, "All have ended, and all of it was told.", media_type=None),
    ),
    (400, 404, 503),
    (*_STREAMED, Parameter("Last-Event-ID", "header", "The same as `after`, as browsers say it.", TEXT)),
)
STREAM_SOCKET = Operation(
    "streamSocket",
    "GET",
    "/v1/stream",
    Tag.REQUESTS,
    "The same over a WebSocket (`Upgrade: websocket`), on which requests may be named and taken back.",
    (Answer(101, "A WebSocket.", media_type=None),),
    (400, 503),
    _STREAMED,
    is_socket=True,
    heard=(StreamMessage,),
    told=(RequestEvent, PartialEvent, RefusalEvent),
)
LIST_LETTERS = Operation(
    "listDeadLetters",
    "GET",
    "/v1/dead_letters",
    Tag.DEAD_LETTERS,
    "Requests that have failed or expired.",
    (Answer(200, "One page of them, which may have fewer than `limit`.", DeadLetterPage),),
    (400, 503),
    (Parameter("route", "query", "Those of one route alone.", TEXT), limit(MOST_LETTERS, LETTERS_LISTED), AFTER, ORDER),
)
REPLAY_LETTER = Operation(
    "replayDeadLetter",
    "POST",
    "/v1/dead_letters/{request_id}/replay",
    Tag.DEAD_LETTERS,
    "Asks a dead request again, in the same words; made once, however often it is sent.",
    (Answer(202, "The new request.", RequestObject, headers=("Location",)),),
    (400, 404, 409, 410, 413, 429, 503),
    (REQUEST, TRACEPARENT),
)
LIST_ROUTES = Operation(
    "listRoutes",
    "GET",
    "/v1/routes",
    Tag.REQUESTS,
    "Where requests wait, how many, and how the workers of warm pools are.",
    (Answer(200, "All routes.", RouteList),),
    (503,),
)

OPERATIONS = (
    CREATE_REQUEST,
    RETRIEVE_REQUEST,
    CANCEL_REQUEST,
    STREAM_EVENTS,
    STREAM_SOCKET,
    LIST_LETTERS,
    REPLAY_LETTER,
    LIST_ROUTES,
)
