"""The operator may die at any moment: at each of its calls, before the API server hears of it, and at each write, after it was answered.

What is only read leaves no trace: whoever dies with such an answer is as one who dies before the next call.

Every life is a batch with one operator that is killed once and started again. Lives are lived a few at a time, each in a namespace and
with a proxy of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from builders import BatchBuilder, a_batch
from headrace.api.batchstatus import RecordCounts
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.worker import ExitCode, Role
from headrace.shells.kube.resources import CONFIG_MAPS, JOBS

from .operator_rig import RECORDS, Plane, Rig, plane
from .operator_workers import Fate, Pod
from .proxy import Call, any_call

__all__ = ["plane"]
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("waiting")]

AT_ONCE = 6
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


@dataclass(frozen=True)
class Life:
    """What came of one life."""

    killed_at: str
    """The call; empty when the batch was at its end before so many calls were made."""
    batch: InferenceBatch
    created: list[str]
    """Children that were created."""
    present: set[str]
    """Children that are there in the end."""


def live(plane: Plane, folder: Path, case: Case, number: int, *, answered: bool) -> Life:
    """One life."""
    rig = Rig(plane, folder)
    try:
        rig.script.shards, rig.script.fate = 2, case.fate
        operator = rig.operator()
        deadly = changes_something if answered else any_call
        rig.proxy.kill_at(number, lambda: operator.pid, answered=answered, among=deadly)
        rig.submit(case.batch)
        operator.start()
        rig.eventually(lambda: not operator.alive or rig.batch().status.finished, "the kill, or the end")
        calls = rig.proxy.made(deadly)
        assert operator.alive or len(calls) >= number, f"it ended by itself:\n{operator.log}"
        victim = "" if operator.alive else str(calls[number - 1])
        if victim:
            operator.start()
        batch = rig.until_state(case.state)
        created = [call.sent_name for call in rig.proxy.made(creates_child)]
        present = {child["metadata"]["name"] for resource in (JOBS, CONFIG_MAPS) for child in rig.all(resource)}
        return Life(victim, batch, created, present)
    finally:
        rig.close()


def changes_something(call: Call) -> bool:
    """A write, but for the lease, which is written all the time."""
    return call.writes and call.resource != "leases"


def creates_child(call: Call) -> bool:
    """A child was made."""
    return call.verb == "create" and call.resource in (JOBS.plural, CONFIG_MAPS.plural) and call.status == 201


def lives(plane: Plane, folder: Path, case: Case, *, answered: bool) -> Iterator[Life]:
    """Lives with the kill at the first call, the second, and so on, until one comes to its end before the kill."""
    numbers = count(1)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while True:
            wave = [next(numbers) for _ in range(AT_ONCE)]
            found = list(pool.map(lambda number: live(plane, folder, case, number, answered=answered), wave))
            yield from found
            if any(not life.killed_at for life in found):
                return


@pytest.mark.parametrize("answered", [False, True], ids=["before it is made", "after a write is answered"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_an_operator_killed_at_any_call_changes_nothing(
    plane: Plane, tmp_path: Path, case: Case, *, answered: bool
) -> None:
    seen = list(lives(plane, tmp_path, case, answered=answered))
    assert sum(bool(life.killed_at) for life in seen) > (4 if answered else 12)
    for life in seen:
        assert life.batch.status.records == case.records, life
        assert life.created == case.children, life
        assert set(case.children) <= life.present, life
