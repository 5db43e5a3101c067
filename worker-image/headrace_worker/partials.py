"""Saying how far answers have come while they are written, for those who watch them: now and then, and of what is new alone."""

from __future__ import annotations

from collections.abc import Callable

from headrace.api.worker import Partial, partial_line
from headrace_worker.engines.base import Engine, Writing
from headrace_worker.feed import Feed


class Partials:
    """What has been said of unfinished answers. Nothing depends on it."""

    def __init__(self, engine: Engine, feed: Feed, clock: Callable[[], float]) -> None:
        self._engine = engine if isinstance(engine, Writing) else None
        self._feed, self._clock = feed, clock
        self._seconds: float | None = None
        self._next = 0.0
        self._said: dict[str, int] = {}
        """The tokens that were said last, by `custom_id`."""

    def every(self, milliseconds: int | None) -> None:
        """How often it is wanted from now on; None for never."""
        self._seconds = milliseconds / 1000 if milliseconds is not None else None

    def say(self) -> None:
        """Say it, if it is time."""
        now = self._clock()
        if self._engine is None or self._seconds is None or now < self._next:
            return
        self._next = now + self._seconds
        found = [
            Partial(custom_id=work.request.custom_id, text=text, tokens=n)
            for work, text, n in self._engine.unfinished()
        ]
        lines = [partial_line(one) for one in found if one.text and self._said.get(one.custom_id) != one.tokens]
        self._said = {one.custom_id: one.tokens for one in found}
        if lines:
            self._feed.say(b"".join(lines))
