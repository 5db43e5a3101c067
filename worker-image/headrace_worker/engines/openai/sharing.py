"""What the pods of a batch tell each other about an endpoint, and what each makes of it. Pure.

Each pod has its own idea of how much the endpoint bears from all of them together, and adapts it by its own answers. Every few seconds
they take the mean of these ideas, and each takes its part of it: the limit is one, and it outlives the pods that have found it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from headrace.api.base import ApiModel, Count
from headrace_worker.engines.openai.adaptive import Agreed

TURN_SECONDS = 10.0
"""How long it is one pod's turn to send the probe of an endpoint that none of them gets through to."""

_Positive = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]


class Sight(ApiModel):
    """What one pod knows of one endpoint that it asks."""

    limit: _Positive | None = None
    """Requests in flight that it is thought to bear from all pods together; None where nothing has been found out, or not lately."""
    rate: _Positive | None = None
    """Requests a second, likewise."""
    open: bool = False
    """Whether this pod's breaker is not closed."""
    works: bool = False
    """Whether this pod has lately been answered."""


class Notice(ApiModel):
    """What one pod tells the others."""

    beat: Count
    """Another number each time: a pod whose number stays is not there any more."""
    endpoints: dict[str, Sight] = Field(default_factory=dict)
    """Those that it asks, by name."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a pod makes of what all of them know of an endpoint."""

    sharers: int
    """Pods that ask it, this one included."""
    limit: Agreed
    """Requests in flight."""
    rate: Agreed
    """Requests a second."""
    may_probe: bool
    """Whether this pod may send the probe when its breaker is half-open."""
    is_down: bool
    """Whether another pod's breaker is open, and nobody is answered."""


def agree(own: str, sights: Mapping[str, Sight], turn: int) -> Agreement:
    """What one pod makes of what is known by the names of the pods, itself included. `turn` is the same number for all of them.

    One pod at a time may probe, each in its turn: the one that cannot reach an endpoint need not be the one that could. When another
    is answered there is no more need for turns.
    """
    waiting = sorted(name for name, it in sights.items() if it.open)
    works = any(it.works and not it.open for it in sights.values())
    return Agreement(
        sharers=len(sights),
        limit=_agreed([it.limit for it in sights.values()], sights[own].limit),
        rate=_agreed([it.rate for it in sights.values()], sights[own].rate),
        may_probe=works or own not in waiting or waiting[turn % len(waiting)] == own,
        is_down=not works and any(name != own for name in waiting),
    )


def _agreed(told: Sequence[float | None], own: float | None) -> Agreed:
    known = [it for it in told if it is not None]
    return Agreed(sum(known) / len(known) if known else None, own)
