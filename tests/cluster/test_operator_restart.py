"""An operator that is started among a thousand live batches looks at all of them, and writes nothing."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime

import pytest

from builders import BatchBuilder, a_batch
from headrace.api.batchstatus import RecordCounts, ShardCounts
from headrace.api.inferencebatch import InferenceBatch
from headrace.core.admission.admit import admit
from headrace.core.admission.demand import Surroundings, demand_of
from headrace.core.observed import Installation, Observed
from headrace.core.reconcile import reconcile
from headrace.shells.kube.resources import BATCHES

from .operator_process import OperatorProcess
from .operator_rig import RECORDS, Rig, manifest, plane, rig
from .operator_workers import Fate
from .proxy import Call

__all__ = ["plane", "rig"]
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("operator")]

LIVE = 1_000
AT_ONCE = 32


def settled(batch: InferenceBatch) -> InferenceBatch:
    """The batch with the status that it comes to when nothing happens to it."""
    place, now = Installation(default_output="file:///out"), datetime.now(UTC).replace(microsecond=0)
    verdict = admit([demand_of(batch, Surroundings(now))], [], [], now)[batch.key]
    while (plan := reconcile(Observed(batch, now, verdict=verdict, installation=place))).status != batch.status:
        batch = batch.model_copy(update={"status": plan.status})
    return batch


def suspended_after_planning() -> BatchBuilder:
    """A batch that was suspended before it began to run: live, and with no children."""
    batch = a_batch("b").sharded(4).with_spec(suspend=True).validated(records=10)
    return batch.with_status(records=RecordCounts(total=10, pending=10), shards=ShardCounts(total=4))


async def make_live(rig: Rig, count: int) -> None:
    """Create so many live batches, without an operator."""
    api, gate = rig.plane.api, asyncio.Semaphore(AT_ONCE)

    async def make(number: int) -> None:
        builder = BatchBuilder(f"b{number}", suspended_after_planning().spec)
        async with gate:
            made = InferenceBatch.parse(await api.create(BATCHES, rig.namespace, manifest(builder)))
            live = settled(made.model_copy(update={"status": suspended_after_planning().status}))
            metadata = {"namespace": rig.namespace, "name": builder.name, "uid": made.metadata.uid}
            await api.replace_status(BATCHES, metadata, live.status.to_object())

    await asyncio.gather(*(make(number) for number in range(count)))


def has_looked_at_all(operator: OperatorProcess) -> bool:
    """Whether it has looked at every batch: none of the looks that its start has asked for is to come."""
    return looks(operator) > LIVE and operator.health().get("queue", {}).get("depth") == 0


def looks(operator: OperatorProcess) -> int:
    """How many looks the operator has taken at batches."""
    found = re.search(r"^headrace_reconcile_seconds_count (\S+)$", operator.get("/metrics")[1], re.MULTILINE)
    return int(float(found[1])) if found else 0


def writes(call: Call) -> bool:
    """Something was written besides the lease."""
    return call.writes and call.resource != "leases"


def test_a_restart_among_a_thousand_live_batches_writes_nothing(rig: Rig) -> None:
    rig.script.fate = lambda _: Fate(waits=True, done_so_far=1)
    rig.run(make_live(rig, LIVE))
    operator = rig.operator().start().wait_ready()
    rig.submit(a_batch().inline(*RECORDS).sharded(2))
    rig.until(lambda batch: batch.status.records.succeeded == 2, "two pods at work, and asked how far they are")
    rig.eventually(lambda: has_looked_at_all(operator), "every batch looked at")
    assert {call.name for call in rig.proxy.made(writes) if call.resource == BATCHES.plural} == {"reviews"}

    operator.kill()
    seen = len(rig.proxy.calls)
    operator.start().wait_ready()
    rig.eventually(lambda: has_looked_at_all(operator), "every batch looked at")
    assert {call.name for call in rig.proxy.made(writes, since=seen)} <= {"reviews"}  # whose workers go on
