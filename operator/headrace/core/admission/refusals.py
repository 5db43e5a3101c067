"""Who can never start as things are, and is told so at once instead of being let wait."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from headrace.api.bulkhead import BulkheadSpec
from headrace.api.reasons import Reason
from headrace.core.admission.demand import Demand, Shape
from headrace.core.admission.entry import Cause
from headrace.core.admission.ledger import NOTHING, Caps
from headrace.core.admission.selector import selects

_NOT_KNOWN = Cause(Reason.QUOTA_EXCEEDED, "")
"""Stands for a size that was not looked at yet: of one that is not too large, None is known."""


@dataclass(slots=True)
class Refusals:
    """Those of one bulkhead, as long as its spec stays the same."""

    name: str
    spec: BulkheadSpec | None = None
    """None: there is no such Bulkhead."""
    too_large: dict[Shape, Cause | None] = field(default_factory=dict)
    """What was found out about sizes before."""

    def of(self, demand: Demand) -> Cause | None:
        """Why the batch can never start; None when it can."""
        if self.spec is None:
            message = f"there is no Bulkhead {self.name}: create it, or make the batch anew with another bulkheadName"
            return Cause(Reason.UNKNOWN_BULKHEAD, message)
        selector = self.spec.namespace_selector
        if selector is not None and not selects(selector, demand.namespace_labels or {}):
            message = f"the namespaceSelector of Bulkhead {self.name} does not take namespace {demand.namespace}"
            return Cause(Reason.NAMESPACE_NOT_SELECTED, message)
        return self._too_large(demand.shape.size, self.spec)

    def are_none_of(self, shapes: Iterable[Shape]) -> bool:
        """Whether batches of those shapes can all start, whoever they are of."""
        spec = self.spec
        if spec is None or spec.namespace_selector is not None:
            return False
        return all(self._too_large(shape.size, spec) is None for shape in shapes)

    def _too_large(self, size: Shape, spec: BulkheadSpec) -> Cause | None:
        known = self.too_large.get(size, _NOT_KNOWN)
        if known is _NOT_KNOWN:
            known = self.too_large[size] = self._never_fits(size, spec)
        return known

    def _never_fits(self, size: Shape, spec: BulkheadSpec) -> Cause | None:
        limits = (
            (Caps.of(spec.capacity, spec), f"Bulkhead {self.name}"),
            (Caps.of(spec.per_namespace), "a namespace there"),
        )
        for caps, whose in limits:
            if caps.room(NOTHING, size) < size.min_pods:
                lacks = caps.shortage(NOTHING, size)
                needs, has = lacks.removesuffix(" used").split(", 0 of ")
                message = f"{needs}, {whose} may have {has}: ask for less, or have the Bulkhead enlarged"
                return Cause(Reason.EXCEEDS_CAPACITY, message)
        return None
