"""Who goes first: `spec.ordering` as keys that can be compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headrace.api.bulkhead import Ordering
from headrace.core.admission.demand import Demand, Shape, latest_start
from headrace.core.admission.entry import Group, Turn


@dataclass(frozen=True, slots=True)
class Order:
    """The keys of an ordering."""

    group: Callable[[Demand, Shape], Group]
    """What is compared before the fair share, of who waits for that shape; the smaller goes first."""
    turn: Callable[[Demand], Turn]
    """What is compared after it."""
    fair: bool
    """Whether namespaces take turns."""

    @classmethod
    def of(cls, ordering: tuple[Ordering, ...]) -> Order:
        """The keys of that ordering."""
        fair = Ordering.FAIR_SHARE in ordering
        cut = ordering.index(Ordering.FAIR_SHARE) if fair else int(ordering[0] == Ordering.PRIORITY)
        before, after = ordering[:cut], ordering[cut + 1 if fair else 0 :]
        return cls(_groups(before), _turns(after), fair)


_KEYS: dict[Ordering, Callable[[Demand], Any]] = {
    Ordering.PRIORITY: lambda demand: -demand.priority,
    Ordering.DEADLINE: latest_start,
    Ordering.AGE: lambda demand: demand.created,
}


def _groups(words: tuple[Ordering, ...]) -> Callable[[Demand, Shape], Group]:
    if words == (Ordering.PRIORITY,):
        return lambda demand, shape: (-demand.priority, shape.grows)
    keys = [_KEYS[word] for word in words]
    return lambda demand, shape: (*[key(demand) for key in keys], shape.grows)


def _turns(words: tuple[Ordering, ...]) -> Callable[[Demand], Turn]:
    if words in ((Ordering.DEADLINE, Ordering.AGE), (Ordering.DEADLINE,)):
        return lambda demand: (latest_start(demand), demand.created, demand.key)
    keys = [_KEYS[word] for word in words]
    return lambda demand: (*[key(demand) for key in keys], demand.created, demand.key)
