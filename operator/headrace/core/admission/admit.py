"""`admit`: all verdicts at once, from nothing but what is observed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from headrace.api.bulkhead import Bulkhead
from headrace.core.admission import words
from headrace.core.admission.book import Book
from headrace.core.admission.compartment import Compartment
from headrace.core.admission.demand import Demand
from headrace.core.admission.ranking import standings
from headrace.core.observed import Verdict


def admit(
    waiting: Iterable[Demand], running: Iterable[Demand], bulkheads: Iterable[Bulkhead], now: datetime
) -> Mapping[str, Verdict]:
    """The verdicts on all batches that want something, by `namespace/name`.

    Whether a batch waits or runs is in its own status; they may be given in any order. Once every verdict is in the status that it is
    about, asking again gives the same.
    """
    book = Book()
    book.load((*running, *waiting), bulkheads, now)
    verdicts: dict[str, Verdict] = {}
    for compartment in book.compartments.values():
        verdicts |= _verdicts(compartment, now)
    return verdicts


def _verdicts(compartment: Compartment, now: datetime) -> dict[str, Verdict]:
    found = standings(compartment, now)
    verdicts = {key: words.admitted(entry) for key, entry in compartment.entries.items() if entry.target}
    for entry, why in words.causes(compartment, now):
        key = entry.demand.key
        verdicts[key] = words.waiting(why, found.get(key), entry)
    return verdicts
