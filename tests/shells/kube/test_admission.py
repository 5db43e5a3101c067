"""Admission between a watch and the work queue: who is told of what, and what is written to Bulkheads."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from admission_builders import a_bulkhead
from builders import NOON, BatchBuilder, a_batch
from headrace.api.batchstatus import Admission as Held
from headrace.api.bulkhead import Bulkhead
from headrace.api.bulkheadstatus import BulkheadStatus
from headrace.api.reasons import Reason
from headrace.shells.kube.admission import Admission, Key
from headrace.shells.kube.line import Urgency

ONE_AT_A_TIME = a_bulkhead(capacity={"batches": 1})


def ready(name: str) -> BatchBuilder:
    return a_batch(name).with_spec(bulkheadName="prod").validated()


def running(name: str) -> BatchBuilder:
    return ready(name).admitted().with_status(admission=Held(pods=1, time=NOON))


ENDED = running("first").with_spec(cancel=True).with_status(admission=Held(pods=0))


class Shell:
    """What stands around admission in the operator."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.written: list[tuple[str, BulkheadStatus]] = []
        self.urgencies: list[tuple[str, Urgency]] = []
        self.admission = Admission("worker", self.tell, self.write)

    def tell(self, key: Key, urgency: Urgency) -> None:
        self.told.append(key[1])
        self.urgencies.append((key[1], urgency))

    async def write(self, bulkhead: Bulkhead, status: BulkheadStatus) -> None:
        self.written.append((bulkhead.name, status))
        self.admission.heard_bulkhead(bulkhead.model_copy(update={"status": status}), NOON)

    def tick(self, after: float) -> None:
        asyncio.run(self.admission.tick(NOON + timedelta(seconds=after)))


@pytest.fixture
def shell() -> Shell:
    made = Shell()
    made.admission.load([running("first").build(), ready("second").build()], [ONE_AT_A_TIME], NOON)
    return made


def look(shell: Shell, batch: BatchBuilder) -> tuple[bool, Reason]:
    verdict = shell.admission.look(batch.build(), NOON)
    return verdict.admitted, verdict.reason


def test_look_gives_verdicts_from_what_was_listed(shell: Shell) -> None:
    assert look(shell, running("first")) == (True, Reason.ADMITTED)
    assert look(shell, ready("second")) == (False, Reason.QUOTA_EXCEEDED)


def test_look_at_a_batch_that_is_about_to_be_ready_lets_it_in_with_the_same_write(shell: Shell) -> None:
    shell.admission.heard_bulkhead(a_bulkhead(capacity={"batches": 2}), NOON)
    assert look(shell, a_batch("third").with_spec(bulkheadName="prod")) == (False, Reason.PLANNING)
    look(shell, ENDED)
    shell.admission.settled(ENDED.build(), NOON)
    assert look(shell, ready("third")) == (True, Reason.ADMITTED)


def test_written_tells_of_who_may_start_now(shell: Shell) -> None:
    shell.admission.written(ENDED.build(), NOON)
    assert shell.told == ["second"]


def test_refused_takes_nothing_from_a_batch_that_runs_and_lets_no_other_in(shell: Shell) -> None:
    shell.admission.refused(("default", "first"), NOON)
    assert look(shell, ready("second")) == (False, Reason.QUOTA_EXCEEDED)
    shell.admission.refused(("default", "second"), NOON)
    shell.admission.gone(("default", "first"), NOON)
    assert not shell.told


def test_settled_gives_back_what_a_batch_that_has_ended_was_told(shell: Shell) -> None:
    look(shell, running("first"))
    shell.admission.written(ENDED.build(), NOON)
    assert shell.told == [], "somebody may still be writing that it runs"
    shell.admission.settled(ENDED.build(), NOON)
    assert shell.told == ["second"]


def test_gone_tells_of_who_may_start_now(shell: Shell) -> None:
    shell.admission.gone(("default", "first"), NOON)
    assert shell.told == ["second"]


def test_what_was_decided_is_more_urgent_than_where_somebody_stands(shell: Shell) -> None:
    shell.tick(0)
    shell.admission.gone(("default", "first"), NOON)
    assert shell.urgencies == [("second", Urgency.WHENEVER), ("second", Urgency.NOW)]


def test_heard_bulkhead_tells_its_members_of_a_change_and_not_of_its_own_status(shell: Shell) -> None:
    larger = a_bulkhead(capacity={"batches": 2})
    shell.admission.heard_bulkhead(larger, NOON)
    assert sorted(set(shell.told)) == ["first", "second"]
    shell.told.clear()
    shell.admission.heard_bulkhead(larger.model_copy(update={"status": BulkheadStatus(waiting=7)}), NOON)
    assert shell.told == []
    shell.admission.gone_bulkhead("prod", NOON)
    assert look(shell, ready("third")) == (False, Reason.UNKNOWN_BULKHEAD)


def test_tick_writes_what_is_new_and_not_too_often(shell: Shell) -> None:
    shell.tick(0)
    shell.tick(10)
    assert [(name, status.waiting) for name, status in shell.written] == [("prod", 1)]
    shell.admission.gone(("default", "first"), NOON)
    shell.tick(11)
    shell.admission.gone(("default", "second"), NOON)
    shell.tick(12)
    assert [status.used.batches for _, status in shell.written] == [1, 1]
    shell.tick(16)
    assert [status.used.batches for _, status in shell.written] == [1, 1, 0]
