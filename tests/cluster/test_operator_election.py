"""Two replicas, of which one acts; and the schema and the load that a new leader meets."""

from __future__ import annotations

import os
import signal
import time

import pytest

from builders import a_batch
from headrace.api.batchstatus import RecordCounts
from headrace.core.election import LeaseTerms
from headrace.shells.kube.resources import JOBS, LEASES

from .operator_rig import RECORDS, Rig, plane, rig, second_operator
from .operator_workers import Fate
from .proxy import Proxy, any_call, hang

__all__ = ["plane", "rig"]
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("waiting")]

INLINE = a_batch().inline(*RECORDS).sharded(2)
RIVALS = LeaseTerms(lease_seconds=30, give_up_seconds=15, renew_seconds=2)
"""For tests that wait until a Lease has run out: a process that stands still for ten seconds is neither dead nor late."""


def writes(proxy: Proxy) -> list[str]:
    """What was written besides the lease."""
    return [str(call) for call in proxy.calls if call.writes and call.resource != "leases"]


def test_of_two_replicas_one_acts(rig: Rig) -> None:
    rig.operator().start().wait_ready()
    _, proxy = second_operator(rig)
    rig.submit(INLINE)
    rig.until_state("Complete")
    assert writes(rig.proxy)
    assert not writes(proxy)
    assert {call.resource for call in proxy.calls} == {"customresourcedefinitions", "leases"}


def test_a_leader_that_is_killed_is_replaced(rig: Rig) -> None:
    rig.lease_terms = RIVALS
    first = rig.operator().start().wait_ready()
    second, _ = second_operator(rig)
    rig.script.fate = lambda _: Fate(waits=True)
    rig.submit(INLINE)
    rig.until_at_work(2)
    first.kill()
    killed = time.monotonic()
    second.wait_until(lambda health: health["leading"] and health["ready"])
    took = time.monotonic() - killed
    print(f"the second replica acted {took:.1f} s after the first was killed")
    rig.script.let_go()
    assert rig.until_state("Complete").status.records == RecordCounts(total=10, succeeded=10)
    assert list(rig.jobs()) == ["reviews-run"]


def test_a_leader_that_stops_hands_over_at_once(rig: Rig) -> None:
    """Its Lease would hold for longer than anybody waits here."""
    rig.lease_terms = LeaseTerms(lease_seconds=3600, give_up_seconds=600, renew_seconds=2)
    first = rig.operator().start().wait_ready()
    second, _ = second_operator(rig)
    asked = time.monotonic()
    assert first.stop() == 0
    second.wait_ready()
    print(f"the second replica acted {time.monotonic() - asked:.1f} s after the first was asked to stop")


def test_a_leader_that_was_frozen_writes_nothing_when_it_wakes(rig: Rig) -> None:
    rig.script.fate = lambda _: Fate(waits=True)
    rig.lease_terms = RIVALS
    first = rig.operator().start().wait_ready()
    second, _ = second_operator(rig)
    rig.submit(INLINE)
    rig.until_at_work(2)
    os.kill(first.pid, signal.SIGSTOP)
    second.wait_until(lambda health: health["leading"] and health["ready"])
    seen = len(rig.proxy.calls)
    rig.delete(JOBS, "reviews-run")  # something to act on as soon as it wakes
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait() == 1
    assert not [str(call) for call in rig.proxy.calls[seen:] if call.writes]
    assert "the lease is lost" in first.log


def test_a_leader_that_cannot_reach_the_api_server_gives_up_before_others_act(rig: Rig) -> None:
    rig.lease_terms = RIVALS
    first = rig.operator().start().wait_ready()
    second, _ = second_operator(rig)
    rig.proxy.on(any_call, hang)
    assert first.wait() == 1
    assert not second.health()["leading"]
    second.wait_ready()


def test_an_operator_that_may_not_have_the_lease_says_so(rig: Rig) -> None:
    operator = rig.operator(lease_namespace="there-is-none").start()
    health = operator.wait_until(lambda health: "there-is-none" in health["problem"])
    assert not health["ready"]
    assert not health["leading"]
    assert operator.stop() == 0


def test_the_lease_says_who_leads(rig: Rig) -> None:
    operator = rig.operator().start().wait_ready()
    lease = rig.get(LEASES, "headrace-operator")["spec"]
    assert (lease["holderIdentity"], lease["leaseTransitions"]) == ("operator-1", 1)
    assert lease["leaseDurationSeconds"] == rig.lease_terms.lease_seconds
    assert operator.stop() == 0
    assert rig.get(LEASES, "headrace-operator")["spec"]["holderIdentity"] == ""
