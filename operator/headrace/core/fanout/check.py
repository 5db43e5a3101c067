"""What the schema cannot know about a FanOutJob. What is wrong with one branch alone is that branch's own business: it fails, alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from headrace.api.aggregation import aggregation_problems
from headrace.api.base import FieldError, InvalidSpec
from headrace.api.fanoutjob import FanOutJob
from headrace.api.prompts import check_template
from headrace.api.routing import check_when
from headrace.api.scorers import TEXT_TASKS
from headrace.core.check import model_problems, spec_problems
from headrace.core.fanout.observed import as_batch
from headrace.core.observed import Installation


def fan_out_problems(fan_out: FanOutJob, place: Installation) -> tuple[FieldError, ...]:
    """All that is wrong with the spec at that place; empty when it can be acted on."""
    return (
        *spec_problems(as_batch(fan_out, place), place),
        *aggregation_problems(fan_out.spec.aggregation),
        *_model_problems(fan_out, place),
        *_image_problems(fan_out, place),
        *_task_problems(fan_out),
        *_branch_problems(fan_out),
    )


def _model_problems(fan_out: FanOutJob, place: Installation) -> Iterator[FieldError]:
    """What is wrong with the models that the join itself is to run."""
    tokens = set()
    for name, use in fan_out.spec.aggregation.named_uses():
        at, source = f"spec.aggregation.{name}", use.model.source
        for error in model_problems(use.model, use.engine, place):
            yield FieldError(error.field.replace("spec", at, 1), error.message)
        if source is not None and source.hugging_face is not None and source.hugging_face.token_secret_ref is not None:
            tokens.add(source.hugging_face.token_secret_ref)
    if len(tokens) > 1:
        message = "its models run in one pod: they must have the same tokenSecretRef"
        yield FieldError("spec.aggregation", message)


def _image_problems(fan_out: FanOutJob, place: Installation) -> Iterator[FieldError]:
    if fan_out.spec.aggregation.image is not None and place.no_containers:
        yield FieldError("spec.aggregation.image", place.no_containers)


def _task_problems(fan_out: FanOutJob) -> Iterator[FieldError]:
    kind = fan_out.spec.aggregation.type
    if not kind.needs_text:
        return
    for index, branch in enumerate(fan_out.spec.branches):
        if branch.model.task not in TEXT_TASKS:
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
