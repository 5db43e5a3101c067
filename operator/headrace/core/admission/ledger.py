"""Counting what is held against what may be held."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from headrace.api.bulkhead import BulkheadSpec, Holdings
from headrace.core.admission.demand import Shape

PLENTY = 1 << 30
"""More pods than anything has."""


class Amounts(NamedTuple):
    """How much of each thing some pods take up."""

    gpus: int = 0
    pods: int = 0
    batches: int = 0
    calls: int = 0

    @classmethod
    def of(cls, shape: Shape, pods: int, batches: int) -> Amounts:
        """What so many pods of that shape take up."""
        return cls(shape.gpus * pods, pods, batches, shape.calls * pods)


@dataclass(slots=True)
class Ledger:
    """What is held, in all and of each kind of GPU."""

    gpus: int = 0
    pods: int = 0
    batches: int = 0
    calls: int = 0
    resources: dict[str, int] = field(default_factory=dict)

    def add(self, shape: Shape, pods: int, batches: int) -> None:
        """So many more (or, negative, fewer) are held."""
        gpus = shape.gpus * pods
        self.gpus += gpus
        self.pods += pods
        self.batches += batches
        self.calls += shape.calls * pods
        if gpus:
            self.resources[shape.resource] = self.resources.get(shape.resource, 0) + gpus

    def take(self, other: Ledger) -> None:
        """All that the other one speaks of is held no more."""
        self.gpus -= other.gpus
        self.pods -= other.pods
        self.batches -= other.batches
        self.calls -= other.calls
        for resource, gpus in other.resources.items():
            self.resources[resource] = self.resources.get(resource, 0) - gpus

    def copy(self) -> Ledger:
        """One to try things in."""
        return Ledger(self.gpus, self.pods, self.batches, self.calls, self.resources.copy())

    @property
    def amounts(self) -> Amounts:
        """What is held in all."""
        return Amounts(self.gpus, self.pods, self.batches, self.calls)


@dataclass(frozen=True, slots=True)
class Caps:
    """What may be held; None for any amount."""

    gpus: int | None = None
    pods: int | None = None
    batches: int | None = None
    calls: int | None = None
    resources: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, holdings: Holdings, spec: BulkheadSpec | None = None) -> Caps:
        """The limits in a spec; those of single kinds of GPUs belong to the whole bulkhead."""
        resources = {resource.name: resource.gpus for resource in spec.per_resource} if spec is not None else {}
        caps = cls(holdings.gpus, holdings.pods, holdings.batches, holdings.endpoint_calls, resources)
        return caps if caps != NO_CAPS else NO_CAPS

    def room(self, used: Ledger, shape: Shape) -> int:
        """How many pods of that shape there is room for. None for a new batch where there may be no further batch."""
        if self.batches is not None and not shape.grows and used.batches >= self.batches:
            return 0
        room = PLENTY if self.pods is None else self.pods - used.pods
        if shape.gpus:
            if self.gpus is not None:
                room = min(room, (self.gpus - used.gpus) // shape.gpus)
            if shape.resource in self.resources:
                left = self.resources[shape.resource] - used.resources.get(shape.resource, 0)
                room = min(room, left // shape.gpus)
        if shape.calls and self.calls is not None:
            room = min(room, (self.calls - used.calls) // shape.calls)
        return max(0, room)

    def shortage(self, used: Ledger, shape: Shape) -> str:
        """What there is too little of for the least that the shape needs, in numbers: `needs 4 GPU, 6 of 8 used`."""
        needs = Amounts.of(shape, shape.min_pods, int(not shape.grows))
        limits = (self.gpus, self.pods, self.batches, self.calls)
        for unit, need, have, limit in zip(_UNITS, needs, used.amounts, limits, strict=True):
            if limit is not None and need and have + need > limit:
                return f"needs {need} {unit}, {have} of {limit} used"
        if shape.resource in self.resources and shape.gpus:
            need, have, limit = needs.gpus, used.resources.get(shape.resource, 0), self.resources[shape.resource]
            if have + need > limit:
                return f"needs {need} {shape.resource}, {have} of {limit} used"
        return ""

    def share(self, held: Ledger, used: Ledger) -> float:
        """The dominant share of one namespace: of the GPUs or the pods, whichever it has the larger share of.

        Where there is no limit, the share is of what all together hold.
        """
        gpus = held.gpus / (self.gpus or used.gpus or 1)
        pods = held.pods / (self.pods or used.pods or 1)
        return max(gpus, pods)


class Rooms(dict[Shape, bool]):
    """Whether there is room for the least of a size. Shapes differ in much that has nothing to do with it; a size is counted once."""

    __slots__ = ("_caps", "_used")

    def __init__(self, caps: Caps, used: Ledger) -> None:
        self._caps, self._used = caps, used

    def __missing__(self, size: Shape) -> bool:
        """It is asked for the first time."""
        fits = self[size] = self._caps.room(self._used, size) >= size.min_pods
        return fits

    def for_which(self, shapes: Iterable[Shape]) -> set[Shape]:
        """Those of the shapes that there is room for."""
        if self._caps.gpus is not None and self._used.gpus >= self._caps.gpus:  # as usual, where anybody waits
            shapes = [shape for shape in shapes if not shape.gpus]
        return {shape for shape in shapes if self[shape.size]}


_UNITS = ("GPU", "pods", "batch", "endpoint calls")
NO_CAPS = Caps()
"""No limit at all; there is one such object only, so that it is soon told from others."""
NOTHING = Ledger()
"""Never changed: what is held where nothing is."""
