"""What a batch has come to, and what to do next: the last lines of a run, its exit code, and its error for programs."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import unquote, urlsplit

from headrace.api.batchstatus import InferenceBatchStatus
from headrace.api.kinds import OurObject
from headrace.api.meta import Condition, ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.cli.exits import BAD_INPUT, FAILED, CliError
from headrace.cli.target import Manner, Ref
from headrace.cli.text import duration, number, plural

_MENDED_OUTSIDE = (Reason.WORKER_FAILED, Reason.FINALIZE_FAILED)
"""Ends after which the work is kept as it is, for a retry."""


def exit_code(batch: OurObject) -> int:
    """0 for a complete batch, 2 when its input or spec was refused, 1 otherwise."""
    if batch.status.is_true(ConditionType.COMPLETE):
        return 0
    return BAD_INPUT if was_refused(batch) else FAILED


def was_refused(batch: OurObject) -> bool:
    """Whether the batch has failed because of what it was given."""
    failed = _failure(batch)
    return failed is not None and failed.reason in (Reason.INPUT_INVALID, Reason.INVALID_SPEC)


def refusal(batch: OurObject) -> CliError:
    """The error of a batch that was refused, with every line that is known to be wrong."""
    failed, validation = _failure(batch), batch.status.validation
    assert failed is not None
    errors = [problem.to_object() for problem in validation.errors] if validation is not None else []
    text = _refusal_text(batch, failed)
    return CliError(str(failed.reason), f"{batch.metadata.name}: {failed.message}", BAD_INPUT, errors=errors, text=text)


def outcome_text(batch: OurObject, manner: Manner, log: str | None = None) -> str:
    """A few lines: what came of it, how fast it was, where everything is. `log` is that of the pod that failed last."""
    lines = [_headline(batch), *_figures(batch), *_evaluation(batch), *_places(batch)]
    return "\n".join([*lines, *_next_steps(batch, manner, log)])


def _failure(batch: OurObject) -> Condition | None:
    found = batch.status.condition(ConditionType.FAILED)
    return found if found is not None and found.status == ConditionStatus.TRUE else None


def _refusal_text(batch: OurObject, failed: Condition) -> str:
    validation, name = batch.status.validation, batch.metadata.name
    if validation is None:
        return f"{name}: {failed.message}"
    lines = [f"{name}: the input has {plural(validation.error_count, 'bad line')}, so nothing was worked on:"]
    for error in validation.errors:
        where = f"{error.file} line {error.line}" if error.file else f"line {error.line}"
        lines.append(f"  {where}: {error.message} ({error.code})")
    unseen = validation.error_count - len(validation.errors)
    if unseen > 0:
        lines.append(f"  and {unseen:,} more{f': see {_path(validation.uri)}' if validation.uri else ''}")
    return "\n".join([*lines, "Mend the input and run the same command again."])


def _headline(batch: OurObject) -> str:
    records, failed = batch.status.records, _failure(batch)
    if failed is not None:
        return f"{batch.metadata.name} failed: {failed.reason}: {failed.message}"
    complete = batch.status.condition(ConditionType.COMPLETE)
    if complete is not None and complete.reason == Reason.NO_DATA:
        return f"{batch.metadata.name} is complete: {complete.message}"
    tail = f", {records.failed:,} failed" if records.failed else ""
    return (
        f"{batch.metadata.name} is complete: {records.succeeded:,} of {plural(records.total, 'record')} succeeded{tail}"
    )


def _figures(batch: OurObject) -> list[str]:
    status, span = batch.status, _span(batch)
    if not status.records.total or span is None:
        return []
    seconds, done = span.total_seconds(), status.records.succeeded + status.records.failed
    usage = status.usage
    figures = [f"took {duration(span)}"]
    if seconds >= 1 and done:
        figures.append(f"{number(done / seconds)} records/s")
    if seconds >= 1 and usage.prompt_tokens + usage.completion_tokens:
        figures.append(f"{number((usage.prompt_tokens + usage.completion_tokens) / seconds)} tokens/s")
    if isinstance(status, InferenceBatchStatus) and status.batch_fill_percent is not None:
        figures.append(f"batches {status.batch_fill_percent}% full")
    figures.append(f"{usage.prompt_tokens:,} prompt + {usage.completion_tokens:,} completion tokens")
    if _failure(batch) is not None:
        figures.insert(0, f"{done:,} of {plural(status.records.total, 'record')} done")
    return ["  " + " · ".join(figures)]


def _evaluation(batch: OurObject) -> list[str]:
    """How good the answers are, and whether the run has drifted, in the words of the conditions."""
    evaluated, drift = (batch.status.condition(kind) for kind in (ConditionType.EVALUATED, ConditionType.DATA_DRIFT))
    lines = [f"  {'evaluated' if _holds(evaluated) else 'not evaluated'}: {evaluated.message}"] if evaluated else []
    if drift is not None:
        known = drift.status != ConditionStatus.UNKNOWN
        head = ("data drift" if _holds(drift) else "no data drift") if known else "not compared"
        lines.append(f"  {head}: {drift.message}")
    return lines


def _holds(condition: Condition | None) -> bool:
    return condition is not None and condition.status == ConditionStatus.TRUE


def _span(batch: OurObject) -> timedelta | None:
    began, ended = batch.status.start_time, batch.status.completion_time
    return ended - began if began is not None and ended is not None else None


def _places(batch: OurObject) -> list[str]:
    output = batch.status.output
    return [f"  output: {_path(output.uri)}"] if output is not None else []


def _next_steps(batch: OurObject, manner: Manner, log: str | None) -> list[str]:
    ref, records, failed = Ref.of(batch), batch.status.records, _failure(batch)
    steps = []
    if records.succeeded:
        steps.append(f"  results: {manner.command('results', ref)}")
    if records.failed:
        steps.append(f"  failed records: {manner.command('results', ref, '--errors')}")
    if failed is not None and log is not None:
        steps.append(f"  log of the worker: {log}")
    if failed is not None and failed.reason in _MENDED_OUTSIDE:
        steps.append(f"  when that is mended: {manner.command('retry', ref)}")
    elif failed is not None:
        steps.append(f"  to start over: {manner.start_over}")
    return steps


def _path(uri: str) -> str:
    """A file's path, which can be pasted; any other URI as it is."""
    return unquote(urlsplit(uri).path) if uri.startswith("file://") else uri
