"""Bulkheads on a real control plane: what is held, who waits and why, and that nothing is held twice whatever dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from builders import BatchBuilder, a_batch
from fanout_builders import a_fan_out
from headrace.api.base import JsonObject
from headrace.api.bulkhead import Bulkhead
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.meta import ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import Role
from headrace.shells.kube.resources import BATCHES, BULKHEADS, FAN_OUTS, JOBS, NAMESPACES, PODS

from .operator_process import OperatorProcess
from .operator_rig import RECORDS, Rig, failed_with, fan_out_manifest, plane, rig
from .operator_workers import Fate, Pod
from .proxy import Act, Call, Forward, calls_to

__all__ = ["plane", "rig"]
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("operator")]


class Compartments:
    """The Bulkheads of one test. They are in no namespace, so their names tell whose they are."""

    def __init__(self, rig: Rig) -> None:
        self._rig, self._made = rig, list[str]()

    def name(self, short: str) -> str:
        return f"{self._rig.namespace}-{short}"

    def make(self, short: str, **spec: Any) -> None:
        head = {"apiVersion": BULKHEADS.api_version, "kind": BULKHEADS.kind, "metadata": {"name": self.name(short)}}
        self._rig.create(BULKHEADS, {**head, "spec": spec})
        self._made.append(short)

    def change(self, short: str, **spec: Any) -> None:
        self._rig.change(BULKHEADS, self.name(short), {"spec": spec})

    def delete(self, short: str) -> None:
        self._rig.delete(BULKHEADS, self.name(short))
        self._made.remove(short)

    def get(self, short: str) -> Bulkhead:
        return Bulkhead.parse(self._rig.get(BULKHEADS, self.name(short)))

    def until_waiting(self, short: str, count: int) -> Bulkhead:
        """Its status is written beside the work, some seconds after what it tells of."""

        def found() -> Bulkhead | None:
            bulkhead = self.get(short)
            return bulkhead if bulkhead.status.waiting == count else None

        waiting = self._rig.eventually(found, f"{count} wait in {short}")
        assert waiting is not None
        return waiting

    def close(self) -> None:
        for short in list(self._made):
            self.delete(short)


@pytest.fixture
def bulkheads(rig: Rig) -> Iterator[Compartments]:
    made = Compartments(rig)
    yield made
    made.close()


@pytest.fixture
def operator(rig: Rig) -> OperatorProcess:
    """One operator, whose pods wait until they are let go."""
    rig.script.fate = lambda _: Fate(waits=True)
    return rig.operator().start().wait_ready()


def member(bulkhead: str, name: str, shards: int = 2, **spec: Any) -> BatchBuilder:
    """A batch of that Bulkhead with so many shards, each of which wants a pod with one GPU at once."""
    builder = BatchBuilder(name, a_batch().inline(*RECORDS).sharded(shards).spec)
    return builder.with_spec(bulkheadName=bulkhead, resources={"gpus": 1}, **spec)


def admission(batch: InferenceBatch) -> tuple[bool, Reason | None, str]:
    found = batch.status.condition(ConditionType.ADMITTED)
    return (found.status == ConditionStatus.TRUE, Reason(found.reason), found.message) if found else (False, None, "")


def until_waits(rig: Rig, name: str, reason: Reason, words: str = "") -> InferenceBatch:
    """Wait until a batch is not admitted for that reason, with those words in its message, and return it."""

    def waits(batch: InferenceBatch) -> bool:
        admitted, why, message = admission(batch)
        return not admitted and why == reason and words in message

    return rig.until(waits, f"{name} waits: {reason}: {words}", name)


def held(rig: Rig) -> int:
    """Pods that the statuses of all batches say are held."""
    batches = (InferenceBatch.parse(found) for found in rig.all(BATCHES))
    return sum(batch.status.admission.pods for batch in batches if batch.status.admission is not None)


def let_go(jobs: dict[str, JsonObject]) -> int:
    """Pods that the Job controller may have at work."""
    return sum(job["spec"]["parallelism"] for job in jobs.values() if not job["spec"].get("suspend"))


def test_quota_is_held_waited_for_and_released(operator: OperatorProcess, rig: Rig, bulkheads: Compartments) -> None:
    bulkheads.make("a", capacity={"gpus": 2})
    rig.submit(member(bulkheads.name("a"), "first"))
    rig.until_at_work(2)
    for number, name in enumerate(("second", "third"), 1):
        rig.submit(member(bulkheads.name("a"), name))
        batch = until_waits(rig, name, Reason.QUOTA_EXCEEDED, "needs 1 GPU, 2 of 2 used")
        assert batch.status.queue is not None
        assert (batch.status.queue.position, batch.status.queue.ahead) == (number, number - 1)
    assert set(rig.jobs()) == {"first-run"}
    status = bulkheads.until_waiting("a", 2).status
    assert (status.used.gpus, status.used.pods, status.used.batches) == (2, 2, 1)
    header, row = rig.kubectl("get", "bh", bulkheads.name("a")).splitlines()
    assert header.split() == ["NAME", "GPUS", "PODS", "BATCHES", "WAITING", "OLDEST", "AGE"]
    assert row.split()[1:5] == ["2/2", "2", "1", "2"]
    operator.until_metric(f'headrace_bulkhead_held{{bulkhead="{bulkheads.name("a")}",what="gpus"}} 2.0')
    operator.until_metric(f'headrace_bulkhead_waiting{{bulkhead="{bulkheads.name("a")}"}} 2.0')
    rig.script.let_go()
    for name in ("first", "second", "third"):
        rig.until_state("Complete", name)
    rig.eventually(lambda: bulkheads.get("a").status.used.pods == 0, "all is released")


def test_a_batch_whose_operator_died_after_admitting_it_still_counts(rig: Rig, bulkheads: Compartments) -> None:
    rig.script.fate = lambda _: Fate(waits=True)
    bulkheads.make("a", capacity={"gpus": 2})
    operator = rig.operator()
    rig.proxy.on(calls_to("jobs", "create"), kills(operator), times=1)
    operator.start().wait_ready()
    rig.submit(member(bulkheads.name("a"), "first"))
    operator.wait()
    assert (held(rig), rig.jobs()) == (2, {})
    rig.submit(member(bulkheads.name("a"), "second", priority=0))
    operator.start().wait_ready()
    until_waits(rig, "second", Reason.QUOTA_EXCEEDED)
    rig.until_at_work(2)
    for _ in range(3):
        operator.kill()
        operator.start().wait_ready()
        operator.until_metric(f'headrace_bulkhead_waiting{{bulkhead="{bulkheads.name("a")}"}} 1.0')  # it has counted
        assert (held(rig), let_go(rig.jobs())) == (2, 2)
    rig.script.let_go()
    rig.until_state("Complete", "first")
    rig.until_state("Complete", "second")


@pytest.mark.parametrize("away", [False, True], ids=["just before the operator dies", "while there is no operator"])
def test_pods_of_a_batch_that_is_deleted_count_for_the_next_operator_until_they_are_gone(
    rig: Rig, bulkheads: Compartments, *, away: bool
) -> None:
    rig.script.fate = lambda _: Fate(waits=True, lingers=True)
    bulkheads.make("a", capacity={"gpus": 2})
    operator = rig.operator().start().wait_ready()
    rig.submit(member(bulkheads.name("a"), "first"))
    rig.until_at_work(2)
    if away:
        operator.kill()
    rig.delete(BATCHES, "first")
    rig.eventually(lambda: leaving_pods(rig) == 2, "both pods are told to end, and do not")
    rig.eventually(lambda: rig.gone(BATCHES, "first") and rig.gone(JOBS, "first-run"), "all else is gone")
    if not away:
        operator.kill()
    rig.submit(member(bulkheads.name("a"), "second"))
    operator.start().wait_ready()
    until_waits(rig, "second", Reason.QUOTA_EXCEEDED, "needs 1 GPU, 2 of 2 used")
    used = bulkheads.until_waiting("a", 1).status.used
    assert (used.gpus, used.pods, used.batches) == (2, 2, 1)
    assert (leaving_pods(rig), rig.jobs()) == (2, {})
    rig.script.let_go()
    assert rig.until_state("Complete", "second").status.records.succeeded == 10
    rig.eventually(lambda: bulkheads.get("a").status.used.pods == 0, "all is released")


def leaving_pods(rig: Rig) -> int:
    """Pods that were told to end and are still there."""
    return sum("deletionTimestamp" in pod["metadata"] for pod in rig.all(PODS))


def kills(operator: OperatorProcess) -> Act:
    """The request is lost, and its sender with it."""

    async def act(_: Call, __: Forward) -> web.StreamResponse:
        os.kill(operator.pid, signal.SIGKILL)
        raise ConnectionResetError("the caller was killed")

    return act


@pytest.mark.usefixtures("operator")
def test_what_can_never_fit_is_told_at_once_and_blocks_nobody(rig: Rig, bulkheads: Compartments) -> None:
    bulkheads.make("a", capacity={"gpus": 2})
    rig.submit(member(bulkheads.name("a"), "huge", 3, minParallelism=3))
    words = f"needs 3 GPU, Bulkhead {bulkheads.name('a')} may have 2"
    batch = until_waits(rig, "huge", Reason.EXCEEDS_CAPACITY, words)
    assert batch.status.queue is None
    rig.submit(member(bulkheads.name("a"), "small"))
    rig.until_at_work(2)


@pytest.mark.usefixtures("operator")
def test_a_lower_capacity_ends_nothing(rig: Rig, bulkheads: Compartments) -> None:
    bulkheads.make("a", capacity={"gpus": 2})
    rig.submit(member(bulkheads.name("a"), "first"))
    rig.until_at_work(2)
    bulkheads.change("a", capacity={"gpus": 1})
    rig.submit(member(bulkheads.name("a"), "second", 1))
    until_waits(rig, "second", Reason.QUOTA_EXCEEDED, "needs 1 GPU, 2 of 1 used")
    assert let_go(rig.jobs()) == 2
    assert len(rig.script.of_role(Role.RUN)) == 2
    bulkheads.change("a", capacity={"gpus": 3})
    rig.until_at_work(3)


@pytest.mark.usefixtures("operator")
def test_a_batch_starts_with_the_room_that_there_is_and_grows_when_there_is_more(
    rig: Rig, bulkheads: Compartments
) -> None:
    bulkheads.make("a", capacity={"gpus": 3})
    rig.submit(member(bulkheads.name("a"), "first"))
    rig.until_at_work(2)
    rig.submit(member(bulkheads.name("a"), "second"))
    rig.until_at_work(3)
    some = (True, Reason.ADMITTED, "1 of 2 pods; the others follow when there is room")
    rig.until(lambda it: admission(it) == some, "second is admitted with one pod", "second")
    assert rig.jobs()["second-run"]["spec"]["parallelism"] == 1
    bulkheads.change("a", capacity={"gpus": 4})
    rig.until_at_work(4)
    assert rig.jobs()["second-run"]["spec"]["parallelism"] == 2
    rig.script.let_go()
    assert rig.until_state("Complete", "second").status.records.succeeded == 10


@pytest.mark.usefixtures("operator")
def test_a_flood_in_one_bulkhead_does_not_hold_up_another(rig: Rig, bulkheads: Compartments) -> None:
    bulkheads.make("a", capacity={"batches": 1})
    bulkheads.make("b", capacity={"batches": 1})
    rig.script.fate = lambda pod: Fate(waits=pod.config.batch.name.startswith("flood"))
    for number in range(30):
        rig.submit(member(bulkheads.name("a"), f"flood-{number}"))
    rig.submit(member(bulkheads.name("b"), "calm"))
    rig.until_state("Complete", "calm")
    assert bulkheads.until_waiting("a", 29).status.used.batches == 1
    rig.eventually(lambda: len(places(rig)) == 29, "each of them is told where it stands")


def places(rig: Rig) -> list[int]:
    """Where batches stand in their lines, as their statuses say."""
    queues = (InferenceBatch.parse(found).status.queue for found in rig.all(BATCHES))
    return [queue.position for queue in queues if queue is not None]


def test_a_higher_priority_has_the_lower_one_drain_first(
    operator: OperatorProcess, rig: Rig, bulkheads: Compartments
) -> None:
    bulkheads.make("a", capacity={"gpus": 2})
    rig.submit(member(bulkheads.name("a"), "low"))
    rig.until_at_work(2)
    rig.submit(member(bulkheads.name("a"), "high", priority=9, minParallelism=2))
    until_waits(rig, "low", Reason.PREEMPTED, f"makes room for {rig.namespace}/high, whose priority is 9")
    rig.eventually(
        lambda: let_go({"high": rig.jobs().get("high-run", {"spec": {"suspend": True, "parallelism": 0}})}) == 2,
        "high runs",
    )
    assert rig.get(JOBS, "low-run")["spec"]["suspend"]
    assert held(rig) == 2
    rig.script.let_go()
    assert rig.until_state("Complete", "high").status.records.succeeded == 10
    assert rig.until_state("Complete", "low").status.records.succeeded == 10
    cost = f'headrace_lost_gpu_seconds_total{{bulkhead="{bulkheads.name("a")}",reason="Preempted"}} '
    rig.eventually(lambda: any(line.startswith(cost) for line in operator.metrics()), "its cost is counted")


@pytest.mark.usefixtures("operator")
def test_a_batch_that_has_used_up_its_budget_keeps_what_is_done_and_goes_on_when_it_is_raised(
    rig: Rig, bulkheads: Compartments
) -> None:
    rig.script.fate = lambda pod: Fate(waits=pod.shard == 1)
    bulkheads.make("a", capacity={"gpus": 2})
    rig.submit(member(bulkheads.name("a"), "reviews", parallelism=1, budget={"maxTokens": 50}))
    ended = rig.until_state("BudgetExceeded")
    assert (ended.status.records.succeeded, ended.status.records.pending) == (5, 5)
    assert "50 of spec.budget.maxTokens 50 are used up, 5 of 10 records are left" in failed_with(ended)
    rig.eventually(lambda: bulkheads.get("a").status.used.gpus == 0, "its GPU is given back")
    rig.script.let_go()
    rig.patch("reviews", {"spec": {"budget": {"maxTokens": 1000}}})
    done = rig.until_state("Complete").status
    assert (done.records.succeeded, done.usage.prompt_tokens + done.usage.completion_tokens) == (10, 100)


@pytest.mark.usefixtures("operator")
def test_branches_of_a_fan_out_go_through_the_same_gate(rig: Rig, bulkheads: Compartments) -> None:
    bulkheads.make("a", capacity={"batches": 1})
    fan_out = a_fan_out("one", "two").with_spec(input={"inline": RECORDS, "format": "jsonl"})
    branches = [{**branch, "bulkheadName": bulkheads.name("a")} for branch in fan_out.spec["branches"]]
    rig.create(FAN_OUTS, fan_out_manifest(fan_out.with_spec(branches=branches)))
    rig.until_at_work(1)
    bulkheads.until_waiting("a", 1)
    rig.script.let_go()
    rig.eventually(lambda: rig.state(FAN_OUTS, "answers") == "Complete", "the fan-out complete")
    assert set(rig.jobs()) >= {"answers-one-run", "answers-two-run"}


@pytest.mark.usefixtures("operator")
def test_a_label_of_the_namespace_opens_the_bulkhead(rig: Rig, bulkheads: Compartments) -> None:
    bulkheads.make("a", namespaceSelector={"matchLabels": {"team": "blue"}})
    rig.submit(member(bulkheads.name("a"), "first"))
    until_waits(rig, "first", Reason.NAMESPACE_NOT_SELECTED)
    assert let_go(rig.jobs()) == 0
    rig.change(NAMESPACES, rig.namespace, {"metadata": {"labels": {"team": "blue"}}})
    rig.until_at_work(2)


@pytest.mark.usefixtures("operator")
def test_a_bulkhead_that_is_deleted_leaves_what_runs_alone(rig: Rig, bulkheads: Compartments) -> None:
    bulkheads.make("a", capacity={"gpus": 2})
    rig.submit(member(bulkheads.name("a"), "first"))
    rig.until_at_work(2)
    bulkheads.delete("a")
    rig.submit(member(bulkheads.name("a"), "second"))
    words = f"there is no Bulkhead {bulkheads.name('a')}: create it"
    until_waits(rig, "second", Reason.UNKNOWN_BULKHEAD, words)
    assert let_go(rig.jobs()) == 2
    bulkheads.make("a", capacity={"gpus": 4})
    rig.until_at_work(4)


def test_a_breaker_opens_and_goes_on_by_itself(rig: Rig, bulkheads: Compartments) -> None:
    mended = False

    def fate(_: Pod) -> Fate:
        return Fate(waits=True, done_so_far=1) if mended else Fate(no_image=True)

    rig.script.fate = fate
    operator = rig.operator().start().wait_ready()
    bulkheads.make("a", capacity={"gpus": 20})
    names = [f"b{number}" for number in range(3)]
    for name in names:
        rig.submit(member(bulkheads.name("a"), name))
    for name in names:
        until_waits(rig, name, Reason.BREAKER_OPEN, "batches have failed in a row")
    rig.submit(member(bulkheads.name("a"), "late"))
    until_waits(rig, "late", Reason.BREAKER_OPEN)
    rig.eventually(lambda: bulkheads.get("a").status.used.gpus == 0, "the GPUs are given back")

    def open_breakers() -> list[str]:
        return [breaker.name.split()[0] for breaker in bulkheads.get("a").status.breakers if breaker.state == "Open"]

    rig.eventually(lambda: open_breakers() == ["image"], "the breaker in the status")
    operator.until_metric('headrace_breakers{state="Open"} 1.0')
    mended = True
    rig.until_at_work(8)
    rig.script.let_go()
    for name in (*names, "late"):
        rig.until_state("Complete", name)
