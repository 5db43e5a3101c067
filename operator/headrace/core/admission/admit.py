"""`admit`: all verdicts at once, from nothing but what is observed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import chain

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
    return _Verdicts(book, now)


class _Verdicts(Mapping[str, Verdict]):
    """What a book says. Words, positions and estimates of a bulkhead are made as soon as somebody asks for one of them."""

    def __init__(self, book: Book, now: datetime) -> None:
        self._book, self._now = book, now
        self._made: dict[str, dict[str, Verdict]] = {}

    def __getitem__(self, key: str) -> Verdict:
        name = self._book.where[key]
        if name not in self._made:
            self._made[name] = _verdicts(self._book.compartments[name], self._now)
        return self._made[name][key]

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(compartment.entries for compartment in self._book.compartments.values())

    def __len__(self) -> int:
        return sum(len(compartment.entries) for compartment in self._book.compartments.values())


def _verdicts(compartment: Compartment, now: datetime) -> dict[str, Verdict]:
    found = standings(compartment, now)
    verdicts = {key: words.admitted(entry) for key, entry in compartment.entries.items() if entry.target}
    for entry, why in words.causes(compartment, now):
        key = entry.demand.key
        verdicts[key] = words.waiting(why, found.get(key), entry)
    return verdicts
