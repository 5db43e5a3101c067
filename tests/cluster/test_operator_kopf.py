"""The operator with kopf as its watcher: another source of the same events, with the same end."""

from __future__ import annotations

import pytest

from builders import a_batch
from headrace.api.batchstatus import RecordCounts
from headrace.shells.kube.rbac import lease_rules, rules

from .operator_rig import RECORDS, Rig, plane, rig
from .operator_workers import Fate
from .proxy import any_call, verbs_used

__all__ = ["plane", "rig"]
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("operator")]


def test_kopf_watches_as_well(rig: Rig) -> None:
    rig.script.fate = lambda _: Fate(waits=True)
    operator = rig.operator(more={"watch_with_kopf": True}).start().wait_ready()
    rig.submit(a_batch().inline(*RECORDS).sharded(2))
    rig.until_at_work(2)
    rig.run(rig.proxy.drop_watches())
    rig.run(rig.proxy.expire_watches(any_call))
    rig.script.let_go()
    assert rig.until_state("Complete").status.records == RecordCounts(total=10, succeeded=10)
    print(verbs_used(rig.proxy.calls), rules(), lease_rules())
    assert operator.stop() == 0
