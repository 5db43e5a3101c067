"""What the schema cannot know about a FanOutJob. What is wrong with one branch alone is that branch's own business: it fails, alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from headrace.api.aggregation import aggregation_problems
from headrace.api.base import FieldError, InvalidSpec
from headrace.api.common import Task
from headrace.api.fanoutjob import FanOutJob
from headrace.api.prompts import check_template
from headrace.api.routing import check_when
from headrace.core.check import spec_problems
from headrace.core.fanout.observed import as_batch
from headrace.core.observed import Installation

_TEXT_TASKS = (Task.CHAT, Task.COMPLETION)


def fan_out_problems(fan_out: FanOutJob, place: Installation) -> tuple[FieldError, ...]:
    """All that is wrong with the spec at that place; empty when it can be acted on."""
    return (
        *spec_problems(as_batch(fan_out, place), place),
        *aggregation_problems(fan_out.spec.aggregation),
        *_task_problems(fan_out),
        *_branch_problems(fan_out),
    )


def _task_problems(fan_out: FanOutJob) -> Iterator[FieldError]:
    kind = fan_out.spec.aggregation.type
    if not kind.needs_text:
        return
    for index, branch in enumerate(fan_out.spec.branches):
        if branch.model.task not in _TEXT_TASKS:
            message = f"must be chat or completion: the aggregation {kind} looks at texts, and there are none of {branch.model.task}"
            yield FieldError(f"spec.branches[{index}].model.task", message)


def _branch_problems(fan_out: FanOutJob) -> Iterator[FieldError]:
    for index, branch in enumerate(fan_out.spec.branches):
        at = f"spec.branches[{index}]"
        try:
            if branch.when is not None:
                check_when(branch.when, f"{at}.when")
            if branch.prompt is not None:
                check_template(branch.prompt)
        except InvalidSpec as error:
            yield from _moved(error.errors, "spec.input", at)


def _moved(errors: Iterable[FieldError], old: str, new: str) -> Iterator[FieldError]:
    """Errors of fields that a branch has in another place than a batch."""
    for error in errors:
        inside = error.field.startswith(f"{old}.")
        yield FieldError(new + error.field.removeprefix(old), error.message) if inside else error
