"""The first part of a batch's life: its input is read, and refused or cut into shards. No GPU is asked for."""

from __future__ import annotations

from headrace.api.base import JsonObject
from headrace.api.inferencebatch import OutputStatus, RecordCounts, RecordProblem, ShardCounts, Validation
from headrace.api.manifest import InlinePlan
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import PlanReport, Role
from headrace.core.children import plan_job
from headrace.core.conditions import false, true, unknown
from headrace.core.inline import inline_config_map
from headrace.core.observed import Observed
from headrace.core.step import Step, admission, failed, granted_pods, readiness, suspension
from headrace.core.volumes import output_uri

SHOWN_ERRORS = 20


def planning(observed: Observed, inline: InlinePlan | None) -> Step:
    """The input is being read, or has just been."""
    read_here = inline.report if inline is not None else None
    report = read_here or observed.plan_report
    children = (inline_config_map(observed.batch, inline),) if inline is not None else ()
    if read_here is None:
        children = (*children, plan_job(observed.batch, observed.installation))
    if report is None:
        waiting = unknown(ConditionType.INPUT_VALIDATED, Reason.PLANNING, "the input is being read")
        return Step(children, (waiting, *readiness(observed, Role.PLAN), *suspension(observed)))
    return refused(report) if report.error_count else _planned(observed, report, children)


def _planned(observed: Observed, report: PlanReport, children: tuple[JsonObject, ...]) -> Step:
    message = f"{report.records} records in {report.shards} shards"
    valid = true(ConditionType.INPUT_VALIDATED, Reason.INPUT_VALID, message)
    changes = {
        "records": RecordCounts(total=report.records, pending=report.records),
        "shards": ShardCounts(total=report.shards),
        "output": OutputStatus(uri=output_uri(observed.batch, observed.installation) or ""),
    }
    # Who is let in at once need not wait for a second write to hear it; what it holds from then on is in the same write.
    let_in = (admission(observed),) if observed.verdict.admitted else ()
    return Step(children, (valid, *let_in, *suspension(observed)), changes, granted_pods(observed))


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
