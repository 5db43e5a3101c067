"""`admit`: all verdicts at once, from nothing but what is observed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from headrace.api.bulkhead import Bulkhead
from headrace.core.admission import words
from headrace.core.admission.book import Book
from headrace.core.admission.compartment import Compartment
from headrace.core.admission.demand import Demand, Shape
from headrace.core.admission.entry import Cause
from headrace.core.admission.ledger import NO_CAPS
from headrace.core.admission.order import Place
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
    by_namespace = compartment.namespace_caps is not NO_CAPS or bool(compartment.spec.budgets)
    causes: dict[tuple[Shape, str], Cause] = {}

    def cause(place: Place) -> Cause:
        """Of one lane. What stands in the way of a shape does not depend on its group, and rarely on the namespace."""
        known = (place.shape, place.namespace if by_namespace else "")
        if known not in causes:
            causes[known] = words.shortage(compartment, place, now)
        return causes[known]

    verdicts = {}
    for key, entry in compartment.entries.items():
        if entry.target:
            verdicts[key] = words.admitted(entry)
            continue
        place = compartment.lanes.places.get(key)
        why = cause(place) if place is not None else words.obstacle(compartment, entry, now)
        verdicts[key] = words.waiting(why, found.get(key), entry)
    return verdicts
