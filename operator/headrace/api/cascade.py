"""A cascade: later branches get only the records that the earlier ones do not settle, so a large model works on little."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from headrace.api.base import ApiModel, Count, Rule
from headrace.api.common import exactly_one

MAX_STAGES = 8


class Cascade(ApiModel):
    """Which records go on to the next stage, once those before it have ended: also each that has no answer yet."""

    rules: ClassVar[tuple[Rule, ...]] = (exactly_one("min_agreement_percent", "min_score"),)

    min_agreement_percent: Annotated[int, Field(ge=1, le=100)] | None = None
    """For the aggregation vote: those where less than this share of the weight stands behind the winner; 100: all that are disputed."""
    min_score: Annotated[int, Field(ge=-1_000_000_000, le=1_000_000_000)] | None = None
    """For the aggregation bestOf: those where the first scorer gives the winner less than this."""


class StageStatus(ApiModel):
    """What one stage after the first was given."""

    stage: Annotated[int, Field(ge=1, le=MAX_STAGES - 1)]
    """Which stage."""
    records: Count = 0
    """Records that the stages before it have not settled."""
    spared: Count = 0
    """Records that they have."""
