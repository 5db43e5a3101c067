"""One batch in the book of its bulkhead.

What a batch holds is the largest of three numbers of pods: what was decided (`target`), what somebody was told and may be writing into its
status this moment (`told`), and what its status says (`demand.held`). Only what is seen in the status lowers the third, and it is lowered
there only when the pods are gone. So whoever dies in between, nothing is given out twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from headrace.api.reasons import Reason
from headrace.core.admission.demand import Demand, Shape

Group: TypeAlias = tuple[Any, ...]
"""Compares batches before the share of their namespace is; its last part is whether they run already, and only want to grow."""
Turn: TypeAlias = tuple[Any, ...]
"""Compares batches of one line; it ends with the key, so no two are equal."""

NO_SHAPE = Shape("", 0, 0, 0, ())
"""Of what does not wait."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a batch is refused, or has to give something back."""

    reason: Reason
    message: str


@dataclass(eq=False)
class Entry:
    """One batch, and what was decided about it. Of most, which wait, nothing was: those fields are left to the class."""

    demand: Demand
    target: int = field(default=0, init=False)
    """Pods that it may have."""
    told: int = field(default=0, init=False)
    """The most pods that somebody may be writing into its status."""
    counted: int = field(default=0, init=False)
    """Pods that it stands for in the ledgers."""
    kept: int = field(default=0, init=False)
    """Of those, the ones that it does not have to give back."""
    giving: Cause | None = field(default=None, init=False)
    """Why it has to give pods back; None when it need not."""
    refused: Cause | None = field(default=None, init=False)
    """Why it cannot even wait; None when it can."""
    group: Group = field(default=(), init=False)
    """Among whom it waits, or has waited until room was kept for it; empty when it does not wait."""
    shape: Shape = field(default=NO_SHAPE, init=False)
    """What it waits for."""
    turn: Turn = field(default=(), init=False)
    """Its turn in the line; empty as long as nobody has asked who is first there."""
    preempts: tuple[str, ...] = field(default=(), init=False)
    """Batches that give way to it."""
