"""One batch in the book of its bulkhead.

What a batch holds is the largest of three numbers of pods: what was decided (`target`), what somebody was told and may be writing into its
status this moment (`told`), and what its status says (`demand.held`). Only what is seen in the status lowers the third, and it is lowered
there only when the pods are gone. So whoever dies in between, nothing is given out twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.api.reasons import Reason
from headrace.core.admission.demand import Demand


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a batch is refused, or has to give something back."""

    reason: Reason
    message: str


@dataclass(slots=True)
class Entry:
    """One batch, and what was decided about it."""

    demand: Demand
    target: int = 0
    """Pods that it may have."""
    told: int = 0
    """The most pods that somebody may be writing into its status."""
    counted: int = 0
    """Pods that it stands for in the ledgers."""
    kept: int = 0
    """Of those, the ones that it does not have to give back."""
    giving: Cause | None = None
    """Why it has to give pods back; None when it need not."""
    refused: Cause | None = None
    """Why it cannot even wait; None when it can."""
    preempts: tuple[str, ...] = ()
    """Batches that give way to it."""
