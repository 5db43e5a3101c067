"""A record on its way through the join: what its branches have answered, and what is known besides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import orjson

from headrace.api.base import JsonObject
from headrace.api.records import RecordError
from headrace_worker.joining.answers import Answer

WINDOW_RECORDS = 128
WINDOW_BYTES = 4 * 1024 * 1024
"""Records go through the models in windows, so that these have full batches; a window is as long as it may be."""


class Case(NamedTuple):
    """One record."""

    id: str
    """Of its line in the output."""
    custom_id: str
    raw: bytes = b""
    """As it stands in the input; nothing for a part of a record."""
    part: JsonObject | None = None
    """The fields of a part; None for a record that was not split."""
    question: JsonObject | RecordError | None = None
    """Its request, where models are shown it; an error when the prompt does not fit it."""
    answers: tuple[Answer, ...] = ()
    """In the order of the branches."""
    missing: Mapping[str, str] = MappingProxyType({})
    """Branches without an answer, and why."""
    said: tuple[str, ...] = ()
    """Their own words."""
    shortage: RecordError | None = None
    """Why there can be no answer to it."""
    attempts: int = 0
    verdict: JsonObject | None = None
    """What a judge has said."""

    @property
    def candidates(self) -> list[tuple[Answer, str]]:
        """The answers that have a text."""
        return [(answer, text) for answer in self.answers if (text := answer.text) is not None]

    @property
    def size(self) -> int:
        """Bytes that it takes, roughly."""
        question = self.question if isinstance(self.question, dict) else None
        return len(self.raw) + sum(
            len(orjson.dumps(part)) for part in (question, *(answer.body for answer in self.answers))
        )


def windows(cases: Iterable[Case]) -> Iterator[list[Case]]:
    """The cases in their order, some at a time; where one window ends depends on them alone."""
    window: list[Case] = []
    size = 0
    for case in cases:
        window.append(case)
        size += case.size
        if len(window) == WINDOW_RECORDS or size >= WINDOW_BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window
