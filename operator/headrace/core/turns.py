"""Which batches go next, where only so many can be worked on at a time.

Those that are only to end (cancelled, or past their deadline) wait for nobody's work: they have places of their own, as many again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import OurObject
from headrace.api.reasons import ConditionType


@dataclass(frozen=True, slots=True)
class Waiting:
    """A batch that nobody works on."""

    name: str
    namespace: str
    created: datetime
    priority: int = 0
    deadline: datetime | None = None
    cancelled: bool = False
    at_rest: bool = False
    """It is suspended, and has put its work away."""

    @classmethod
    def of(cls, batch: OurObject, now: datetime) -> Self:
        """What is known of a batch that is not over. A fan-out has no priority of its own."""
        created, seconds = batch.metadata.creation_timestamp or now, batch.spec.completion_deadline_seconds
        from_creation = created + timedelta(seconds=seconds) if seconds is not None else None
        return cls(
            name=batch.metadata.name,
            namespace=batch.metadata.namespace,
            created=created,
            priority=batch.spec.priority if isinstance(batch, InferenceBatch) else 0,
            deadline=batch.status.deadline_time or from_creation,
            cancelled=batch.spec.cancel,
            at_rest=batch.spec.suspend and batch.status.is_true(ConditionType.SUSPENDED),
        )

    def is_to_end(self, now: datetime) -> bool:
        """Whether nothing is left to do but to close its books."""
        return self.cancelled or (self.deadline is not None and now >= self.deadline)


def next_turns(
    waiting: Iterable[Waiting], working: Iterable[str], ending: Iterable[str], most: int, now: datetime
) -> list[tuple[Waiting, bool]]:
    """Those that begin now, and of each whether it is only to end; `working` and `ending` are the namespaces of those that have begun.

    Of either sort there are at most `most`, and one of each namespace in any case: whoever has nothing under way waits for nobody.
    The namespace that has the fewest is first; in it, higher priority, and then the older one.
    """
    line = sorted(waiting, key=lambda one: (-one.priority, one.created, one.name))
    over = [one for one in line if one.is_to_end(now)]
    to_do = [one for one in line if not one.is_to_end(now) and not one.at_rest]
    return [*((one, True) for one in _fair(over, ending, most)), *((one, False) for one in _fair(to_do, working, most))]


def _fair(line: list[Waiting], busy: Iterable[str], most: int) -> list[Waiting]:
    """Those of a line whose turn it is, next to one for each namespace that is named in `busy`."""
    counts, left, chosen = Counter(busy), [*line], list[Waiting]()
    while left:
        one = min(left, key=lambda one: counts[one.namespace])  # of equal ones the first
        if counts.total() >= most and counts[one.namespace]:
            break
        counts[one.namespace] += 1
        left.remove(one)
        chosen.append(one)
    return chosen
