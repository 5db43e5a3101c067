"""The time whose data a run is about. It follows from the tick of a schedule, and not from the clock when the run begins."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from headrace.api.base import ApiModel, Rule, ZonedTime

_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)


class BadUriTemplate(ValueError):
    """A URI cannot be made of a window; the message says why."""


class Objects(StrEnum):
    """Which objects of an input are read."""

    ALL = "All"
    MODIFIED_IN_WINDOW = "ModifiedInWindow"


class Moment(datetime):
    """A moment in a template: `{{ window.start }}` is as Kubernetes writes it, and it has `strftime` like any other in Jinja."""

    @classmethod
    def of(cls, moment: datetime) -> Moment:
        """That moment, in UTC."""
        return cls.fromtimestamp(moment.timestamp(), UTC)

    def __str__(self) -> str:
        return self.strftime("%Y-%m-%dT%H:%M:%SZ")


class DataWindow(ApiModel):
    """A time: from its start on, and before its end."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.startTime < self.endTime",
            message="startTime must be before endTime",
            check=lambda it: it.start_time < it.end_time,
        ),
    )

    start_time: ZonedTime
    """Its first moment."""
    end_time: ZonedTime
    """The first moment after it."""

    def covers(self, moment: datetime) -> bool:
        """Whether a moment is in it."""
        return self.start_time <= moment < self.end_time

    @property
    def variables(self) -> Mapping[str, Any]:
        """What templates know of it: `window.start` and `window.end`."""
        return {"window": {"start": Moment.of(self.start_time), "end": Moment.of(self.end_time)}}


def fill_uri(uri: str, window: DataWindow) -> str:
    """A URI with the window in it: `s3://in/{{ window.start.strftime('%Y/%m/%d') }}/*.jsonl`. Raises `BadUriTemplate`."""
    if "{{" not in uri and "{%" not in uri:
        return uri
    try:
        return _ENVIRONMENT.from_string(uri).render(window.variables)
    except (
        TemplateError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        raise BadUriTemplate(f"cannot be made of a window: {error}") from error
