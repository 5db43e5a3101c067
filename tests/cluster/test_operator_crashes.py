"""The operator may die at any moment: at each of its calls, before the API server hears of it, and at each write, after it was answered.

What is only read leaves no trace: whoever dies with such an answer is as one who dies before the next call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from builders import BatchBuilder, a_batch
from headrace.api.batchstatus import RecordCounts
from headrace.api.worker import ExitCode, Role
from headrace.shells.kube.resources import CONFIG_MAPS, JOBS

from .operator_lives import Life, any_but_renewals, lasting, live_and_die
from .operator_rig import RECORDS, Plane, plane
from .operator_workers import Fate, Pod
from .proxy import Call

__all__ = ["plane"]
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("waiting")]

ALL_SUCCEEDED = RecordCounts(total=10, succeeded=10)


def works(_: Pod) -> Fate:
    """Every pod does its work."""
    return Fate()


def one_shard_fails(pod: Pod) -> Fate:
    """One of the shards cannot be done."""
    return Fate(exit_code=ExitCode.SHARD_FAILED if (pod.role, pod.shard) == (Role.RUN, 1) else ExitCode.DONE)


@dataclass(frozen=True)
class Case:
    """A kind of life."""

    what: str
    batch: BatchBuilder
    children: list[str]
    """In the order in which they are created."""
    fate: Callable[[Pod], Fate] = works
    state: str = "Complete"
    records: RecordCounts = ALL_SUCCEEDED

    def live(self, life: Life) -> None:
        """Whatever dies meanwhile, each child is made once, and each record is counted."""
        rig = life.rig
        rig.script.shards, rig.script.fate = 2, self.fate
        rig.submit(self.batch)
        life.until(lambda: rig.batch().status.summary.state == self.state, f"state {self.state}")
        assert rig.batch().status.records == self.records
        assert [call.sent_name for call in rig.proxy.made(creates_child)] == self.children
        present = {child["metadata"]["name"] for resource in (JOBS, CONFIG_MAPS) for child in rig.all(resource)}
        assert set(self.children) <= present


CASES = [
    Case("records in a store", a_batch().sharded(2), ["reviews-plan", "reviews-run"]),
    Case(
        "records in the object, and an early end",
        a_batch().inline(*RECORDS).sharded(2),
        ["reviews-input", "reviews-run", "reviews-finalize"],
        one_shard_fails,
        "ShardFailed",
        RecordCounts(total=10, succeeded=5, failed=5),
    ),
]


def creates_child(call: Call) -> bool:
    """A child was made."""
    return call.verb == "create" and call.resource in (JOBS.plural, CONFIG_MAPS.plural) and call.status == 201


@pytest.mark.parametrize("answered", [False, True], ids=["before it is made", "after a write is answered"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_an_operator_killed_at_any_call_changes_nothing(
    plane: Plane, tmp_path: Path, case: Case, *, answered: bool
) -> None:
    among = lasting if answered else any_but_renewals
    killed = live_and_die(plane, tmp_path, case.live, answered=answered, among=among)
    assert killed >= {"create leases", "create jobs", "patch inferencebatches/status"}
    assert answered or killed >= {"list inferencebatches", "watch jobs", "create events"}
