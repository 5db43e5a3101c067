"""What is made of the evaluation of a run: scores, and whether it has drifted from its reference.

`finalize` looks at the run when all of it is committed, and only counts; what is drift is decided here. An evaluation that cannot be
made costs nobody the results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.api.evaluation import EVALUATION_FILE, Evaluation, EvaluationStatus, FeatureDrift
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import Compared, EvaluationReport, Failure, Role
from headrace.core.conditions import Finding, false, true, unknown
from headrace.core.observed import Observed


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What is to be said of an evaluation."""

    findings: tuple[Finding, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Status fields, in snake_case."""


def must_evaluate(observed: Observed) -> bool:
    """Whether the run is to be looked at, and was not yet."""
    job = observed.job(Role.FINALIZE)
    ended = observed.finalize_report is not None or (job is not None and job.failed)
    return observed.batch.spec.evaluation is not None and not ended


def evaluating() -> Finding:
    """That the run is being looked at."""
    return unknown(ConditionType.EVALUATED, Reason.EVALUATING, "all records are done, and are being looked at")


def evaluated(observed: Observed, output_uri: str) -> Evaluated:
    """What the evaluation has found, of a run that is complete; nothing where none was asked for."""
    spec, said = observed.batch.spec.evaluation, observed.finalize_report
    if spec is None:
        return Evaluated()
    report = said.evaluation if said is not None else None
    if report is None:
        return _failed(spec, _why_none(observed))
    if report.failure is not None:
        return _failed(spec, f"{report.failure.reason}: {report.failure.message}")
    drift = tuple(_feature(spec, one) for one in report.compared)
    status = EvaluationStatus(uri=f"{output_uri.rstrip('/')}/{EVALUATION_FILE}", scores=report.scores, drift=drift)
    found = true(ConditionType.EVALUATED, Reason.ANSWERS_EVALUATED, _shown_scores(report))
    return Evaluated((found, *_drift(spec, report, drift)), {"evaluation": status})


def _failed(spec: Evaluation, why: str) -> Evaluated:
    kept = "the results are complete all the same"
    findings = [false(ConditionType.EVALUATED, Reason.EVALUATION_FAILED, f"{why}; {kept}")]
    if spec.reference is not None:
        findings.append(
            unknown(ConditionType.DATA_DRIFT, Reason.NOT_COMPARED, f"the run could not be evaluated: {why}")
        )
    return Evaluated(tuple(findings))


def _why_none(observed: Observed) -> str:
    """Why there is no report: what the worker that gave up has said, or what Kubernetes says of its Job."""
    said = (one.report.failure for one in reversed(observed.reports) if one.role == Role.FINALIZE and one.final)
    failure: Failure | None = next((one for one in said if one is not None), None)
    if failure is not None:
        return f"{failure.reason}: {failure.message}"
    job = observed.job(Role.FINALIZE)
    return (job.failure_message if job is not None else "") or "the pods that were to evaluate the run died"


def _shown_scores(report: EvaluationReport) -> str:
    scores = report.scores
    if scores is None:
        return "no record says what is expected"
    shown = f"accuracy {scores.accuracy}, precision {scores.precision}, recall {scores.recall}, F1 {scores.f1}"
    return f"{scores.correct} of {scores.expected} answers are what was expected: {shown}"


def _feature(spec: Evaluation, compared: Compared) -> FeatureDrift:
    most = f"{spec.max_psi_percent / 100:.2f}"
    limit = max(most, compared.chance, key=float)
    drifted = float(compared.psi) > float(limit)
    return FeatureDrift(feature=compared.feature, psi=compared.psi, limit=limit, drifted=drifted)


def _drift(spec: Evaluation, report: EvaluationReport, drift: tuple[FeatureDrift, ...]) -> tuple[Finding, ...]:
    if spec.reference is None:
        return ()
    if report.incomparable is not None:
        why = report.incomparable
        return (unknown(ConditionType.DATA_DRIFT, Reason.NOT_COMPARED, f"{why.reason}: {why.message}"),)
    if not drift:
        nothing = "there is no feature that both runs have"
        return (unknown(ConditionType.DATA_DRIFT, Reason.NOT_COMPARED, nothing),)
    rest = f"; only one of the runs has {', '.join(report.missing)}" if report.missing else ""
    changed = [f"{one.feature} has a PSI of {one.psi}, above {one.limit}" for one in drift if one.drifted]
    if changed:
        return (true(ConditionType.DATA_DRIFT, Reason.DISTRIBUTION_CHANGED, "; ".join(changed) + rest),)
    most = max(drift, key=lambda one: float(one.psi))
    alike = f"the largest PSI of {len(drift)} features is {most.psi}, of {most.feature}; up to {most.limit} is none"
    return (false(ConditionType.DATA_DRIFT, Reason.DISTRIBUTION_UNCHANGED, alike + rest),)
