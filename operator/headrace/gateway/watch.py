"""What happens at the gateway, told to whoever counts it or makes traces of it: they decide nothing, and nothing waits for them."""

from __future__ import annotations

from headrace.api.asking import ClosedWindow, RequestRecord, RequestRoute
from headrace.core.asking.traces import request_span
from headrace.core.tracing.settings import Tracing
from headrace.tracing import Tracer


class Watch:
    """Hears everything and does nothing. Who wants to know of something has a method of that name."""

    def accepted(self, route: str, seconds: float) -> None:
        """A request is in its queue, so long after it came."""

    def refused(self, route: str | None, status: int, code: str | None) -> None:
        """A request was refused; the route is None where it has found none, and the code is one word of the refusal."""

    def closed(self, route: RequestRoute, window: ClosedWindow) -> None:
        """Requests that have gathered are a window."""

    def under_way(self, route: str, change: int) -> None:
        """So many more windows of a route are at work, or fewer."""

    def ended(self, record: RequestRecord) -> None:
        """A request has ended, and that is written down."""

    def connected(self, kind: str, change: int) -> None:
        """One more waits to be told (1), or one fewer (-1): on a `socket` or by `events`."""

    def pushed(self, milliseconds: int) -> None:
        """An end was told on such a connection, so long after it."""

    def called(self, outcome: str) -> None:
        """A webhook was called: `delivered`, `failed` with another call to come, or `given_up`."""


UNWATCHED = Watch()


class Spans(Watch):
    """Tells of the ends of requests, each in the trace that it was made in."""

    def __init__(self, tracing: Tracing | None, tracer: Tracer) -> None:
        self._tracing, self._tracer = tracing, tracer

    def ended(self, record: RequestRecord) -> None:
        """Send its span, if it is worth one."""
        if (span := request_span(record, self._tracing)) is not None:
            self._tracer.send([span])
