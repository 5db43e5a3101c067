"""The role `plan`: read the whole input once, and either say everything that is wrong with it or write the shard manifest.

Planning twice gives what planning once gave: a shard manifest that is there is kept, and nothing of an output folder is touched
that belongs to another batch. A refused input leaves the folder free, so that a batch with a mended input may use it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from headrace.api.base import InvalidSpec
from headrace.api.input import Input
from headrace.api.manifest import plan_report
from headrace.api.records import ErrorCode, RecordError, Request
from headrace.api.window import Objects
from headrace.api.worker import PlanReport, Segment, WorkerConfig
from headrace_worker.commit import same_batch
from headrace_worker.errors import JobFailed
from headrace_worker.evaluation.document import read_reference
from headrace_worker.failures import input_failures, output_failures
from headrace_worker.formats import extent
from headrace_worker.manifest import file_sha256, find_header
from headrace_worker.owner import check_owner, claim_output
from headrace_worker.planning.carried import undone
from headrace_worker.planning.problems import ProblemList
from headrace_worker.planning.survey import Progress, PromptLimit, Survey
from headrace_worker.resuming import check_earlier
from headrace_worker.stores import join, open_store
from headrace_worker.stores.base import AlreadyExists, NotFound, Store, StoredObject

VALIDATION_FILE = "validation.jsonl"


def plan(
    config: WorkerConfig,
    check: Callable[[Request], int] | None,
    now: int,
    progress: Progress,
    context_tokens: int | None = None,
) -> PlanReport:
    """Plan the batch; what is wrong with its input is in the report.

    `check` returns the tokens of a prompt or raises `RecordError`; it is asked only about prompts that may not fit into
    `context_tokens`. `now` is in seconds since the epoch. `progress` is called now and then with the counts so far.
    Raises `JobFailed`: `OutputInUse`, `OutputNotWritable`, `OutputFull`, `InputUnreadable`, `InvalidSpec`, `UnsupportedScheme`, and
    where the run that this one is to be compared with cannot be read, what `read_reference` does.
    """
    output = open_store(config.output_uri)
    with output_failures():
        check_owner(output, config.output_uri, config.batch)
        known = _known_plan(config)
        if known is not None:
            claim_output(output, config.output_uri, config.batch)
            return known
    check_earlier(config)
    if config.evaluation is not None and config.evaluation.reference is not None:
        read_reference(config.evaluation.reference, config.model.task)  # before anything costs a GPU
    limit = PromptLimit(check, context_tokens) if check is not None and context_tokens is not None else None
    survey, problems = _survey(config, limit, progress)
    if not problems.count and not survey.records:
        return PlanReport()  # the window has brought nothing: the folder stays free, and there is nothing to be done
    if problems.count:
        return PlanReport(
            records=survey.records,
            error_count=problems.count,
            errors=tuple(problems.first),
            errors_uri=problems.uri,
        )
    with output_failures():
        return _publish(config, survey, now)


def _known_plan(config: WorkerConfig) -> PlanReport | None:
    """What an earlier run of this role has planned for this batch."""
    plans = open_store(config.plan_uri)
    header = find_header(plans, config.plan_uri)
    if header is None:
        return None
    same_batch(header.batch, config.batch, config.plan_uri)
    return plan_report(header, file_sha256(plans, config.plan_uri))


@dataclass(frozen=True, slots=True)
class _Source:
    """The objects of the input."""

    store: Store
    objects: list[StoredObject]
    carried: list[Segment]
    """What an earlier batch has left of its own input."""
    emptiness: str
    """What to say when there is no record in them; nothing when that is as good as any."""


def _source(config: WorkerConfig) -> _Source:
    spec = config.input
    store, (objects, emptiness) = open_store(spec.uri or ""), _objects(spec)
    with input_failures():
        sized = [replace(found, size=extent(store, found, spec)) for found in objects]
    return _Source(store, sized, undone(spec, {found.uri for found in objects}), emptiness)


def _objects(spec: Input) -> tuple[list[StoredObject], str]:
    """The objects at the input's URI, and what to say when there is no record in them."""
    uri, window = spec.uri or "", spec.window if spec.objects == Objects.MODIFIED_IN_WINDOW else None
    advice = "input.uri must name a file, a folder with files, or a glob that matches some"
    with input_failures():
        try:
            objects = list(open_store(uri).list(uri))
        except NotFound as error:
            return [], str(error) if window is None else ""
    if window is not None:
        return [it for it in objects if it.modified is not None and window.covers(it.modified)], ""
    return objects, f"{uri} has no records" if objects else f"there is nothing at {uri}: {advice}"


def _survey(config: WorkerConfig, limit: PromptLimit | None, progress: Progress) -> tuple[Survey, ProblemList]:
    """Read the input: once, or a second time when there may be ids that are used twice."""
    source = _source(config)
    survey = _new_survey(config, source, limit)
    problems = _read(config, source, survey, progress)
    suspects = survey.seen.repeated()
    if not suspects:
        return survey, problems
    survey = _new_survey(config, source, limit, suspects)
    return survey, _read(config, source, survey, progress)


def _new_survey(
    config: WorkerConfig, source: _Source, limit: PromptLimit | None, suspects: frozenset[int] = frozenset()
) -> Survey:
    try:
        return Survey(config, source.objects, limit, suspects, source.carried)
    except InvalidSpec as error:
        raise JobFailed("InvalidSpec", str(error)) from error


def _read(config: WorkerConfig, source: _Source, survey: Survey, progress: Progress) -> ProblemList:
    """Everything that is wrong with the input, in its order."""
    uri = join(config.output_uri, "_headrace", VALIDATION_FILE)
    with ProblemList(open_store(config.output_uri), uri) as problems, survey.parts, input_failures():
        survey.read(source.store, problems, progress)
        if not survey.records and source.emptiness:
            problems.add(RecordError(ErrorCode.EMPTY_INPUT, source.emptiness, "input"), 1)
        elif survey.records and not survey.cutter.records and not problems.count:
            message = f"input.when is true for none of the {survey.records} records"
            problems.add(RecordError(ErrorCode.NO_RECORD_TAKEN, message, "input.when"), 1)
    if problems.count or not survey.records:
        survey.parts.delete()
    return problems


def _publish(config: WorkerConfig, survey: Survey, now: int) -> PlanReport:
    output, plans = open_store(config.output_uri), open_store(config.plan_uri)
    claim_output(output, config.output_uri, config.batch)
    output.delete(join(config.output_uri, "_headrace", VALIDATION_FILE))  # of a batch that was refused here
    cutter = survey.parts.cut(survey.cutter.parents) if survey.parts.wanted else survey.cutter
    header, manifest = cutter.manifest(config.batch, now, survey.prompt_tokens, survey.carried, survey.modified)
    try:
        plans.put(config.plan_uri, manifest, if_absent=True)
    except AlreadyExists:  # another pod of this role was faster
        known = _known_plan(config)
        assert known is not None
        return known
    return plan_report(header, hashlib.sha256(manifest).hexdigest())
