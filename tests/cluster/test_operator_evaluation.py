"""The operator on a real control plane: runs that are evaluated, and a schedule that stops for what that has found."""

from __future__ import annotations

import pytest

from builders import a_batch
from headrace.api.meta import ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import ExitCode, Failure, Role
from headrace.shells.kube.resources import BATCHES, SCHEDULES
from schedule_builders import a_schedule

from .operator_process import OperatorProcess
from .operator_rig import Rig, ask_for_run, plane, rig, until_ticking
from .operator_workers import Fate

__all__ = ["plane", "rig"]
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("operator"), pytest.mark.usefixtures("operator")]

EVALUATED = a_batch().with_spec(evaluation={"reference": "s3://out/january/"})


@pytest.fixture
def operator(rig: Rig) -> OperatorProcess:
    """One operator."""
    return rig.operator().start().wait_ready()


def test_a_batch_is_evaluated_when_its_records_are_done_and_says_what_was_found(rig: Rig) -> None:
    rig.submit(EVALUATED)
    status = rig.until_state("Complete").status
    assert status.evaluation is not None
    assert status.evaluation.scores is not None
    assert (status.evaluation.scores.expected, status.evaluation.scores.correct) == (10, 5)
    assert [(one.feature, one.limit, one.drifted) for one in status.evaluation.drift] == [("Language", "0.20", True)]
    assert status.is_true(ConditionType.EVALUATED)
    assert status.is_true(ConditionType.DATA_DRIFT)
    assert set(rig.jobs()) == {"reviews-plan", "reviews-run", "reviews-finalize"}
    for reason in ("AnswersEvaluated", "DistributionChanged"):
        rig.until_event(reason)


def test_a_batch_whose_evaluation_fails_is_complete_all_the_same(rig: Rig) -> None:
    gone = Failure(reason="InputChanged", message="it has")
    rig.script.fate = lambda pod: (
        Fate(exit_code=ExitCode.JOB_FAILED, failure=gone) if pod.role == Role.FINALIZE else Fate()
    )
    rig.submit(EVALUATED)
    status = rig.until_state("Complete").status
    found = status.condition(ConditionType.EVALUATED)
    assert found is not None
    assert (found.status, found.reason) == (ConditionStatus.FALSE, Reason.EVALUATION_FAILED)
    assert status.records.succeeded == 10


def test_a_schedule_stops_when_a_run_has_drifted_and_goes_on_when_its_spec_is_changed(rig: Rig) -> None:
    schedule = a_schedule("0 0 1 1 *", "yearly").of_batch(**EVALUATED.spec).with_spec(onDrift="Pause")
    rig.create(SCHEDULES, schedule.manifest)
    until_ticking(rig, "yearly")
    ask_for_run(rig, "yearly", "now")
    rig.eventually(lambda: not rig.gone(BATCHES, "now"), "a run")
    rig.until_state("Complete", "now")
    rig.eventually(lambda: rig.state(SCHEDULES, "yearly") == "Drifted", "the schedule paused")
    rig.change(SCHEDULES, "yearly", {"spec": {"onDrift": "Warn"}})
    rig.eventually(lambda: rig.state(SCHEDULES, "yearly") == "Scheduled", "the schedule going on")
