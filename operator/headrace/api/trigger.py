"""What begins the runs of a schedule in place of a clock: new objects where its input lies.

An object is new until a run has had it. Runs have windows that follow each other without a gap, and each reads what was last modified in
its own; so no object is in two of them, and none is left out.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from headrace.api.base import ApiModel, Count, Time, ZonedTime
from headrace.api.input import OUTPUT_SCHEMES


class NewObjects(ApiModel):
    """When new objects begin a run: there are enough of them, or the oldest has waited long enough, whichever comes first."""

    uri: Annotated[str, Field(max_length=4096, pattern=rf"^({OUTPUT_SCHEMES})://.+")] | None = None
    """Where they are counted: a file, a folder or a glob; by default what the template reads."""
    at_least: Annotated[int, Field(ge=1, le=1_000_000_000)] = 1
    """How many are enough."""
    max_wait_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """How long the oldest may wait for the others; without it, for as long as it takes."""
    poll_seconds: Annotated[int, Field(ge=10, le=86_400)] = 60
    """The least time between two looks at what is there. Each is a small pod that lists the objects."""
    settle_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60
    """Objects that were modified less long ago than this are left to the next run. It must be longer than a store takes to show an object
    that it says was modified then, such as the upload of one in parts, and than its clock and the cluster's differ."""
    since: ZonedTime | None = None
    """Objects that were last modified before this are not new; by default everything is that no run has had."""


class Trigger(ApiModel):
    """What begins a run."""

    new_objects: NewObjects
    """Objects that no run has had."""


class TriggerStatus(ApiModel):
    """What is known of new objects."""

    cursor_time: Time | None = None
    """What was modified before this has had its run: the window of the next one begins here. None before the first run."""
    look_time: Time | None = None
    """When the last look that has ended was begun."""
    objects: Count | None = None
    """How many new objects it has found; none while nothing is known of those since the last run."""
    oldest_time: Time | None = None
    """When the oldest of them was modified."""
