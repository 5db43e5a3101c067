"""The first part of a batch's life: its input is read, and refused or cut into shards. No GPU is asked for."""

from __future__ import annotations

from datetime import datetime

from headrace.api.base import JsonObject
from headrace.api.batchstatus import OutputStatus, RecordCounts, RecordProblem, ShardCounts, Validation
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.input import Input
from headrace.api.manifest import InlinePlan
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import PlanReport, Role
from headrace.core.check import spec_problems
from headrace.core.children import plan_job
from headrace.core.conditions import false, true, unknown, with_findings
from headrace.core.inline import inline_config_map, lay_out
from headrace.core.observed import Observed
from headrace.core.step import Step, admission, failed, granted_pods, readiness, suspension
from headrace.core.volumes import output_uri

SHOWN_ERRORS = 20


def planned(batch: InferenceBatch, shards: int, now: datetime) -> InferenceBatch:
    """The batch as it will be once its input has been found good and was cut into so many shards."""
    good = true(ConditionType.INPUT_VALIDATED, Reason.INPUT_VALID, "")
    conditions = with_findings(batch.status.conditions, (good,), batch.metadata.generation, now)
    status = batch.status.model_copy(update={"conditions": conditions, "shards": ShardCounts(total=shards)})
    return batch.model_copy(update={"status": status})


def about_to_be(observed: Observed) -> InferenceBatch:
    """The batch that admission has to judge: with its input found good, if the look that is being taken is about to find that.

    So whoever may start at once hears it in the same write.
    """
    batch = observed.batch
    known = batch.status.finished or batch.status.is_true(ConditionType.INPUT_VALIDATED)
    if known or spec_problems(batch, observed.installation):
        return batch
    inline = lay_out(batch, observed.installation)
    report = (inline.report if inline is not None else None) or observed.plan_report
    good = report is not None and report.records and not report.error_count
    return planned(batch, report.shards, observed.now) if report is not None and good else batch


def planning(observed: Observed, inline: InlinePlan | None) -> Step:
    """The input is being read, or has just been."""
    read_here = inline.report if inline is not None else None
    report = read_here or observed.plan_report
    children = (inline_config_map(observed.batch, inline),) if inline is not None else ()
    if read_here is None:
        children = (*children, plan_job(observed.batch, observed.installation))
    if report is None:
        waiting = unknown(ConditionType.INPUT_VALIDATED, Reason.PLANNING, _reading(observed))
        return Step(children, (waiting, *readiness(observed, Role.PLAN), *suspension(observed)))
    if report.error_count:
        return refused(report)
    return _planned(observed, report, children) if report.records else no_data(observed.batch.spec.input)


def _reading(observed: Observed) -> str:
    job = observed.job(Role.PLAN)
    if job is None or not job.suspended:
        return "the input is being read"
    return (
        f"the Job {job.name}, which reads the input, was suspended, and not by Headrace: where Kueue manages Jobs without a queue "
        "name (manageJobsWithoutQueueName), its managedJobsNamespaceSelector must leave this namespace out"
    )


def _planned(observed: Observed, report: PlanReport, children: tuple[JsonObject, ...]) -> Step:
    message = f"{shown_records(report)} in {report.shards} shards"
    valid = true(ConditionType.INPUT_VALIDATED, Reason.INPUT_VALID, message)
    changes = {
        "records": RecordCounts(total=report.records, pending=report.records),
        "shards": ShardCounts(total=report.shards),
        "output": OutputStatus(uri=output_uri(observed.batch, observed.installation) or ""),
    }
    # Who is let in at once need not wait for a second write to hear it; what it holds from then on is in the same write.
    let_in = (admission(observed),) if observed.verdict.admitted else ()
    return Step(children, (valid, *let_in, *suspension(observed)), changes, granted_pods(observed))


def shown_records(report: PlanReport) -> str:
    """How much there is to do, for people."""
    if report.parents is not None:
        return f"{report.records} parts of {report.parents} records"
    taken_up = f", {report.carried} of them taken up from an earlier run," if report.carried else ""
    return f"{report.records} records{taken_up}"


def no_data(spec: Input) -> Step:
    """The end of what was to read what a time has brought, when it has brought nothing."""
    window = spec.window.to_object() if spec.window is not None else {}
    message = f"there is no record in what was modified from {window.get('startTime')} to {window.get('endTime')}: no GPU was used"
    valid = true(ConditionType.INPUT_VALIDATED, Reason.INPUT_VALID, "0 records")
    return Step((), (valid, true(ConditionType.COMPLETE, Reason.NO_DATA, message)))


def refused(report: PlanReport) -> Step:
    """The end of what has bad lines in its input."""
    first = next(iter(report.errors), None)
    lines = "1 bad line" if report.error_count == 1 else f"{report.error_count} bad lines"
    message = f"{lines}; first: {_shown(first)}" if first is not None else lines
    found = Validation(error_count=report.error_count, errors=report.errors[:SHOWN_ERRORS], uri=report.errors_uri)
    end = failed(
        Reason.INPUT_INVALID, f"{message}. Mend the input and submit it again; no GPU was used", {"validation": found}
    )
    invalid = false(ConditionType.INPUT_VALIDATED, Reason.INPUT_INVALID, message)
    return Step(end.children, (invalid, *end.findings), end.changes)


def _shown(problem: RecordProblem) -> str:
    file = f"{problem.file} " if problem.file else ""
    return f"{file}line {problem.line}: {problem.code}: {problem.message}"
