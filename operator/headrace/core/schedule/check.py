"""What the schema cannot know about a ScheduledGeneration. An error in the template is told now, not at the first tick."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from urllib.parse import urlsplit

from headrace.api.base import FieldError
from headrace.api.fanoutjob import FanOutJob
from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.api.window import BadUriTemplate
from headrace.core.check import spec_problems
from headrace.core.fanout.check import fan_out_problems
from headrace.core.observed import Installation
from headrace.core.schedule.children import run_object
from headrace.core.schedule.cron import BadCron
from headrace.core.schedule.times import cron_of, zone_named
from headrace.core.schedule.trigger import earliest_end, watched


def schedule_problems(schedule: ScheduledGeneration, place: Installation, now: datetime) -> tuple[FieldError, ...]:
    """All that is wrong with the spec at that place; empty when it can be acted on."""
    problems = (*_cron_problems(schedule), *_zone_problems(schedule), *_trigger_problems(schedule, place))
    return problems or tuple(_template_problems(schedule, place, now))


def _cron_problems(schedule: ScheduledGeneration) -> Iterator[FieldError]:
    if schedule.spec.schedule is None:
        return
    try:
        cron_of(schedule)
    except BadCron as error:
        yield FieldError("spec.schedule", str(error))


def _zone_problems(schedule: ScheduledGeneration) -> Iterator[FieldError]:
    windows = enumerate(schedule.spec.allowed_windows)
    of_windows = {f"spec.allowedWindows[{number}].timeZone": window.time_zone for number, window in windows}
    for field, name in {"spec.timeZone": schedule.spec.time_zone, **of_windows}.items():
        if name is not None and zone_named(name) is None:
            message = f'"{name}" is not in the time zone database: use a name such as Europe/Berlin'
            yield FieldError(field, message)


def _trigger_problems(schedule: ScheduledGeneration, place: Installation) -> Iterator[FieldError]:
    """That what is new cannot be counted at that place, or could lie where the run of its window does not look."""
    wanted, (work,) = watched(schedule), schedule.spec.template.work
    if wanted is None:
        return
    field, named = "spec.trigger.newObjects.uri", (wanted.uri, work.input.uri)
    if any("{{" in uri or "{%" in uri for uri in named if uri is not None):
        message = "with a trigger neither this nor input.uri may depend on the window: an object elsewhere would never have a run"
        yield FieldError(field, message)
    scheme = urlsplit(wanted.uri or "").scheme
    if scheme in place.unsupported_schemes:
        yield FieldError(field, place.unsupported_schemes[scheme])


def _template_problems(schedule: ScheduledGeneration, place: Installation, now: datetime) -> Iterable[FieldError]:
    at = f"spec.template.{'fanOutJob' if schedule.branches else 'inferenceBatch'}"
    tick = now if schedule.spec.trigger is None else max(now, earliest_end(schedule))
    try:
        run = run_object(schedule, tick)
    except BadUriTemplate as error:
        return (FieldError(f"{at}.input.uri", str(error)),)
    found = fan_out_problems(run, place) if isinstance(run, FanOutJob) else spec_problems(run, place)
    return (FieldError(error.field.replace("spec", at, 1), error.message) for error in found)
