"""The gateway itself: whether it answers, and what."""

from __future__ import annotations

from headrace.api.answers import Health
from headrace.core.httpapi.operation import CSS, HTML, TEXT, Answer, Operation, Tag

HEALTHY = Operation(
    "healthy", "GET", "/healthz", Tag.GATEWAY, "Whether it answers.", (Answer(200, "It does.", Health),), is_open=True
)
READY = Operation(
    "ready",
    "GET",
    "/readyz",
    Tag.GATEWAY,
    "Whether requests can be taken: what keeps them answers.",
    (Answer(200, "They can.", Health),),
    (503,),
    is_open=True,
)
METRICS = Operation(
    "metrics",
    "GET",
    "/metrics",
    Tag.GATEWAY,
    "What is counted, as Prometheus reads it. Nothing of any tenant is told apart.",
    (Answer(200, "The metrics.", media_type=TEXT),),
    is_open=True,
)
STATUS_PAGE = Operation(
    "statusPage",
    "GET",
    "/",
    Tag.GATEWAY,
    "How things stand for whoever asks, as a page for people.",
    (Answer(200, "The page.", media_type=HTML),),
    (503,),
)
STYLESHEET = Operation(
    "stylesheet",
    "GET",
    "/status.css",
    Tag.GATEWAY,
    "How that page looks.",
    (Answer(200, "The stylesheet.", media_type=CSS),),
    is_open=True,
)
DOCUMENT = Operation(
    "document",
    "GET",
    "/openapi.json",
    Tag.GATEWAY,
    "This document.",
    (Answer(200, "What this gateway answers."),),
    is_open=True,
)

OPERATIONS = (
    HEALTHY,
    READY,
    METRICS,
    STATUS_PAGE,
    STYLESHEET,
    DOCUMENT,
)
