"""Hundreds of unkind worlds with a fan-out in each: its branches live in worlds of their own, and the operator dies anywhere."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from builders import NOON, PLACE
from fanout_builders import FanOutBuilder, a_fan_out
from headrace.api import labels
from headrace.api.batchstatus import RecordCounts
from headrace.api.fanoutjob import FanOutJob
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.reasons import ConditionType
from headrace.api.worker import JoinReport, PlanReport, Report, Role, SelectReport
from headrace.core.changes import child_patch
from headrace.core.fanout.branches import views
from headrace.core.fanout.observed import FanOutObserved
from headrace.core.fanout.policy import enough
from headrace.core.fanout.reconcile import reconcile
from headrace.core.observed import JobSnapshot, WorkerReport
from world import World

RECORDS = 20
WORLDS = 240
ROUNDS = 40


@dataclass
class FanOutWorld:
    """A cluster with one fan-out in it. Each branch that is made gets a small world of its own."""

    fan_out: FanOutJob
    seed: int
    branches: dict[str, World] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    """Every branch that was ever made, in that order."""

    def __post_init__(self) -> None:
        self.random, self.now = random.Random(self.seed), NOON

    def observe(self) -> FanOutObserved:
        """One look."""
        children = {name: world.batch for name, world in self.branches.items()}
        snapshots = tuple(
            replace(JobSnapshot.from_object(job), active=int(not job["done"]), complete=job["done"])
            for job in self.jobs.values()
        )
        return FanOutObserved(self.fan_out, self.now, children, snapshots, tuple(self._reports()), installation=PLACE)

    def _reports(self) -> list[WorkerReport]:
        counts = RecordCounts(total=RECORDS, succeeded=RECORDS)
        disputed = 5 * (self.seed % 2)
        said: dict[Role, Report] = {
            Role.PLAN: PlanReport(records=RECORDS, shards=1),
            Role.JOIN: JoinReport(records=counts),
            Role.SELECT: SelectReport(stage=1, records=disputed, spared=RECORDS - disputed),
        }
        roles = (Role(job["metadata"]["labels"][labels.ROLE]) for job in self.jobs.values() if job["done"])
        return [WorkerReport(role, said[role], final=True, exit_code=0) for role in roles]

    def converge(self, *, may_die: bool = True) -> None:
        """One round of the operator, which may die between any two writes; and a look at each branch."""
        plan = reconcile(self.observe())
        writes: list[Any] = []
        if plan.children is not None:
            wanted = {child["metadata"]["name"] for child in plan.children}
            writes += [lambda n=name: self.jobs.pop(n) for name in self.jobs if name not in wanted]
            writes += [lambda c=child: self._apply(c) for child in plan.children]
        writes.append(lambda: self._write_status(plan.status))
        last = self.random.randrange(len(writes) + 1) if may_die and self.random.random() < 0.3 else len(writes)
        for write in writes[:last]:
            write()
        for world in self.branches.values():
            world.converge(may_die=may_die)

    def _apply(self, child: dict[str, Any]) -> None:
        if child["kind"] == "Job":
            self.jobs.setdefault(child["metadata"]["name"], {**child, "done": False})
            return
        name = child["metadata"]["labels"][labels.BRANCH]
        if name in self.branches:
            self._patch(self.branches[name], child)
            return
        stamped = {"uid": f"uid-{name}", "generation": 1, "creationTimestamp": self.now.isoformat()}
        batch = InferenceBatch.parse({**child, "metadata": {**child["metadata"], **stamped}})
        self.branches[name] = World(batch, self.seed + len(self.made), RECORDS, self.now)
        self.made.append(name)

    def _patch(self, world: World, child: dict[str, Any]) -> None:
        data = world.batch.to_object()
        patch = child_patch(data, child) or {}
        for part, changes in patch.get("metadata", {}).items():
            data["metadata"][part] = {**data["metadata"].get(part, {}), **changes}
        data["spec"] = {k: v for k, v in {**data["spec"], **patch.get("spec", {})}.items() if v is not None}
        world.batch = InferenceBatch.parse({**data, "status": {}}).model_copy(update={"status": world.batch.status})

    def _write_status(self, status: Any) -> None:
        self.fan_out = self.fan_out.model_copy(update={"status": status})

    def tick(self, *, kind: bool = False) -> None:
        """Some time passes."""
        self.now += timedelta(seconds=self.random.choice([1, 5, 60]))
        for world in self.branches.values():
            world.tick(kind=kind)
            world.now = self.now
        for job in self.jobs.values():
            job["done"] = job["done"] or kind or self.random.random() < 0.5

    def meddle(self) -> None:
        """The user changes their mind."""
        spec = self.fan_out.spec
        changes: list[dict[str, Any]] = [
            {"suspend": not spec.suspend},
            {"max_parallel_branches": self.random.randrange(1, 4)},
            {"cancel": True},
        ]
        change = self.random.choice(changes)
        self.fan_out = self.fan_out.model_copy(update={"spec": spec.model_copy(update=change)})


def make_world(seed: int) -> FanOutWorld:
    fan_out: FanOutBuilder = a_fan_out("one", "two", "three").with_spec(maxParallelBranches=1 + seed % 3)
    modes = [("All", None), ("Quorum", 2), ("Any", None), ("BestEffort", None)]
    fan_out = fan_out.policy(*modes[seed % 4])
    if seed % 7 < 2 and seed % 4 != 2:
        fan_out = fan_out.with_branch("three", stage=1)
        fan_out = fan_out.with_spec(aggregation={"type": "vote"}, cascade={"minAgreementPercent": 100})
    if seed % 5 == 0:
        fan_out = fan_out.with_spec(completionDeadlineSeconds=400)
    if seed % 3 == 0:
        fan_out = fan_out.with_branch("two", failurePolicy={"maxFailedRecords": 0}, shards=2)
    return FanOutWorld(fan_out.build(), seed)


def check(world: FanOutWorld) -> None:
    status = world.fan_out.status
    assert len(set(world.made)) == len(world.made), "no branch is made twice"
    if status.branches:
        assert [branch.name for branch in status.branches] == ["one", "two", "three"]
        counted = status.branch_counts
        assert counted.succeeded + counted.failed + counted.active <= counted.total
    if world.branches:
        assert status.is_true(ConditionType.INPUT_VALIDATED), "no branch before the input was read"
    if world.fan_out.spec.cascade is not None and "three" in world.made:
        assert [it.records for it in status.stages] == [5], (
            "no later stage before its records are known, and with none of them"
        )


@pytest.mark.parametrize("block", range(6))
def test_reconcile_comes_to_a_true_end_in_every_world(block: int) -> None:
    ends: set[str] = set()
    for seed in range(block, WORLDS, 6):
        world = make_world(seed)
        for _ in range(ROUNDS):
            world.converge()
            check(world)
            if world.random.random() < 0.04 and not world.fan_out.status.finished:
                world.meddle()
            world.tick()
        world.fan_out = world.fan_out.model_copy(
            update={"spec": world.fan_out.spec.model_copy(update={"suspend": False})}
        )
        for _ in range(80):
            world.converge(may_die=False)
            world.tick(kind=True)
        status = world.fan_out.status
        assert status.finished, f"seed {seed}: {status.summary.state}, {status.conditions}"
        won = enough(world.fan_out, views(world.observe()))
        assert status.is_true(ConditionType.COMPLETE) == won, f"seed {seed}: {status.conditions}"
        if status.is_true(ConditionType.JOINED):
            assert status.records.pending == 0
        settled = reconcile(world.observe())
        assert (settled.status, settled.children, settled.events) == (status, None, ())
        ends.add(status.summary.state)
    assert {"Complete", "PartiallySucceeded"} <= ends, "the worlds are varied enough to mean something"
