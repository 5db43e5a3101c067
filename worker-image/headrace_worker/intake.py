"""From the records of a shard to work for the engine: what is finished is skipped, what cannot be answered is refused here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from headrace.api.base import JsonObject
from headrace.api.records import RecordError, Request
from headrace_worker.engines.base import Work
from headrace_worker.ledger import Ledger

_READ_AT_ONCE = 4096
"""Records read in one call, so that skipping a million finished ones keeps nobody waiting."""


@dataclass(slots=True)
class Taken:
    """Records that were taken in together."""

    work: list[Work] = field(default_factory=list)
    refused: list[tuple[int, Request, RecordError]] = field(default_factory=list)
    """Position, request, and what is wrong with it: it costs no model load."""


class Intake:
    """The records of a shard that are still to be done, in the order of the input."""

    def __init__(
        self,
        records: Iterator[tuple[int, Request]],
        ledger: Ledger,
        parameters: JsonObject,
        prepare: Callable[[int, Request], Work],
    ) -> None:
        self.exhausted = False
        self._records, self._ledger, self._parameters, self._prepare = records, ledger, parameters, prepare

    def take(self, most: int) -> Taken:
        """At most `most` records; maybe fewer, and none, although more are to come."""
        taken = Taken()
        read = 0
        for position, request in islice(self._records, min(most, _READ_AT_ONCE)):
            read += 1
            if not self._ledger.is_finished(position):
                self._take_one(position, request, taken)
        self.exhausted = read < min(most, _READ_AT_ONCE)
        return taken

    def _take_one(self, position: int, request: Request, taken: Taken) -> None:
        if self._parameters:
            request = Request(request.custom_id, {**self._parameters, **request.body})
        try:
            work = self._prepare(position, request)
        except RecordError as error:
            taken.refused.append((position, request, error))
            return
        tries = self._ledger.tries(position)
        taken.work.append(work._replace(attempt=tries + 1) if tries else work)
