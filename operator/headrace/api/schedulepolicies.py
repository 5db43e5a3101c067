"""What a schedule does about runs that overlap, were missed, have failed or have drifted, and which time a run is about."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from headrace.api.base import ApiModel, Rule
from headrace.api.common import BASE_WITHIN_CAP


class ConcurrencyPolicy(StrEnum):
    """What a tick does while the run of an earlier one is not over; as with a CronJob."""

    ALLOW = "Allow"
    FORBID = "Forbid"
    REPLACE = "Replace"


class CatchUpPolicy(StrEnum):
    """What becomes of ticks that were missed because nothing was there to notice them."""

    NONE = "None"
    LATEST = "Latest"
    ALL = "All"


class CatchUp(ApiModel):
    """What becomes of ticks that were missed: the API server or its controllers were down."""

    policy: CatchUpPolicy = CatchUpPolicy.LATEST
    """None: a tick that is noticed later than startingDeadlineSeconds (by default 60 then) is not run. Latest: the last one is, as with any
    CronJob. All: each is run, the oldest first, one after the other."""
    max: Annotated[int, Field(ge=1, le=100)] = 24
    """Of All: at most so many, the latest ones."""


class OnDrift(StrEnum):
    """What becomes of a schedule when the data of a run have drifted."""

    WARN = "Warn"
    PAUSE = "Pause"


class FailureBackoff(ApiModel):
    """Another try for a run that has failed: the first so many seconds after its end, each further one so many times later."""

    rules: ClassVar[tuple[Rule, ...]] = (BASE_WITHIN_CAP,)

    limit: Annotated[int, Field(ge=1, le=100)] = 3
    """Tries after the first."""
    base_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60
    """The delay before the second try."""
    factor: Annotated[int, Field(ge=1, le=100)] = 2
    """How many times longer each further delay is."""
    cap_seconds: Annotated[int, Field(ge=1, le=604_800)] = 3600
    """The longest delay of all."""


class Window(ApiModel):
    """The time whose data a run is about. It follows from the tick, whatever the clock says when the run begins."""

    length_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """How long it is; without it, it begins where that of the tick before ends, and that of a runAt with the year 1970."""
    delay_seconds: Annotated[int, Field(ge=0, le=31_536_000)] = 0
    """How long before the tick it ends: for data that comes late."""
