"""What a batch would take, before it is submitted: `headrace plan`."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.api.inferencebatch import InferenceBatch
from headrace.api.model import Task
from headrace.api.worker import PlanReport
from headrace.core.admission.demand import allowed_pods
from headrace.core.check import spec_problems
from headrace.core.inline import lay_out
from headrace.core.observed import Installation, Verdict

DEFAULT_MAX_TOKENS = 128
"""Completion tokens of a record that does not say how many it wants."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a batch would take. None means: not known before the input has been read."""

    shards: int
    pods: int
    """At once."""
    gpus: int
    """At once, over all pods."""
    records: int | None
    prompt_tokens: int | None
    max_completion_tokens: int | None
    """Upper bound from the batch's own parameters; a record's body may ask for another."""
    seconds: int | None
    """At the speed given; None when no speed is known."""
    blocked_by: tuple[str, ...]
    """What would keep it from running; empty when nothing does."""
    verdict: Verdict | str | None = None
    """What admission would say of it now, or why that is not known; None where everything is let in."""


def estimate(
    batch: InferenceBatch,
    place: Installation,
    found: PlanReport | None = None,
    tokens_per_second: float | None = None,
) -> Estimate:
    """What the batch would take at that place.

    `found` is what reading the input has given (inline input is read here); `tokens_per_second` is the speed of all pods
    together that an earlier batch of the same model has reached.
    """
    problems = tuple(map(str, spec_problems(batch, place)))
    inline = lay_out(batch, place) if not problems else None
    report = (inline.report if inline is not None else None) or found
    shards = report.shards if report is not None and report.records else batch.spec.shards
    pods = min(allowed_pods(batch), shards)
    prompt, completion = _tokens(batch, report)
    return Estimate(
        shards=shards,
        pods=pods,
        gpus=pods * batch.spec.gpus,
        records=report.records if report is not None else None,
        prompt_tokens=prompt,
        max_completion_tokens=completion,
        seconds=_seconds(prompt, completion, tokens_per_second),
        blocked_by=(*problems, *_blocking_lines(report)),
    )


def _tokens(batch: InferenceBatch, report: PlanReport | None) -> tuple[int | None, int | None]:
    if report is None:
        return None, None
    if batch.spec.model.task not in (Task.CHAT, Task.COMPLETION):
        return report.estimated_prompt_tokens, 0
    asked = batch.spec.parameters.get("max_tokens", DEFAULT_MAX_TOKENS)
    each = asked if isinstance(asked, int) else DEFAULT_MAX_TOKENS
    return report.estimated_prompt_tokens, report.records * each


def _seconds(prompt: int | None, completion: int | None, speed: float | None) -> int | None:
    if prompt is None or completion is None or not speed:
        return None
    return round((prompt + completion) / speed)


def _blocking_lines(report: PlanReport | None) -> tuple[str, ...]:
    if report is None or not report.error_count:
        return ()
    shown = [f"line {e.line}: {e.code}: {e.message}" for e in report.errors]
    more = report.error_count - len(shown)
    return (*shown, f"and {more} more") if more > 0 else tuple(shown)
