"""A small world to try `reconcile` in: a cluster that runs the Jobs it is given, loses what can be lost, and is driven by a seed.

The world is as unkind as a real one: pods die, last words get lost with their pods, the operator dies between any two writes of
a plan, and the user changes their mind. It knows the truth (which records of which shard are committed), so that a test can hold
every status against it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from builders import NOON, PLACE
from headrace.api import labels
from headrace.api.batchstatus import RecordCounts
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.reasons import Reason
from headrace.api.worker import ExitCode, FinalizeReport, PlanReport, Role, ShardReport
from headrace.core.observed import LET_IN, JobSnapshot, Observed, Verdict, WorkerReport
from headrace.core.plan import Plan
from headrace.core.reconcile import reconcile


@dataclass
class ShardWork:
    """The truth about one shard."""

    records: int
    done: int = 0
    failed: int = 0
    attempt: int = 0
    running: bool = False
    committed: bool = False
    word_lost: bool = False


@dataclass
class World:
    """A cluster with one batch in it."""

    batch: InferenceBatch
    seed: int
    records: int = 60
    now: datetime = NOON
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    shards: list[ShardWork] = field(default_factory=list)
    finalized: bool = False
    statuses: list[Any] = field(default_factory=list)
    verdict: Verdict = LET_IN

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        count = min(self.batch.spec.shards, self.records)
        share, rest = divmod(self.records, count)
        self.shards = [ShardWork(share + (i < rest)) for i in range(count)]

    # what the operator sees

    def observe(self) -> Observed:
        """One look."""
        snapshots = tuple(self._snapshot(job) for job in self.jobs.values())
        return Observed(self.batch, self.now, snapshots, tuple(self._reports()), self.verdict, PLACE)

    def _snapshot(self, job: dict[str, Any]) -> JobSnapshot:
        snapshot = JobSnapshot.from_object(job)
        if snapshot.role != Role.RUN:
            done = job["done"]
            return replace(snapshot, active=int(not done), complete=done)
        committed = frozenset(i for i, s in enumerate(self.shards) if s.committed)
        return replace(
            snapshot,
            active=self.active,
            succeeded_indexes=committed,
            complete=len(committed) == len(self.shards),
            parked=job["parked"],
        )

    def _reports(self) -> list[WorkerReport]:
        reports = []
        for job in self.jobs.values():
            role = Role(job["metadata"]["labels"][labels.ROLE])
            if role == Role.PLAN and job["done"]:
                report = PlanReport(records=self.records, shards=len(self.shards))
                reports.append(WorkerReport(role, report, final=True, exit_code=ExitCode.DONE))
            if role == Role.FINALIZE and job["done"]:
                succeeded = sum(s.done - s.failed for s in self.shards)
                counts = RecordCounts(total=self.records, succeeded=succeeded, failed=self.records - succeeded)
                reports.append(WorkerReport(role, FinalizeReport(records=counts), final=True, exit_code=ExitCode.DONE))
            if role == Role.RUN:
                reports += [r for i, s in enumerate(self.shards) if (r := self._word(i, s)) is not None]
        return reports

    def _word(self, index: int, shard: ShardWork) -> WorkerReport | None:
        if not (shard.running or (shard.committed and not shard.word_lost)):
            return None
        counts = RecordCounts(
            total=shard.records,
            succeeded=shard.done - shard.failed,
            failed=shard.failed,
            pending=shard.records - shard.done,
        )
        report = ShardReport(shard=index, attempt=shard.attempt, committed=shard.committed, records=counts)
        return WorkerReport(Role.RUN, report, final=shard.committed, exit_code=0 if shard.committed else None)

    # what the operator does

    def converge(self, *, may_die: bool = True) -> Plan:
        """One round of the operator; it may die between any two writes."""
        plan = reconcile(self.observe())
        writes = self._writes(plan)
        last = self.random.randrange(len(writes) + 1) if may_die and self.random.random() < 0.3 else len(writes)
        for write in writes[:last]:
            write()
        return plan

    def _writes(self, plan: Plan) -> list[Any]:
        writes = []
        if plan.children is not None:
            wanted = {c["metadata"]["name"]: c for c in plan.children if c["kind"] == "Job"}
            writes += [lambda n=name: self.jobs.pop(n, None) for name in self.jobs if name not in wanted]
            writes += [lambda c=child: self._apply(c) for child in wanted.values()]
        return [*writes, lambda: self._write_status(plan)]

    def _apply(self, child: dict[str, Any]) -> None:
        known = self.jobs.setdefault(child["metadata"]["name"], {**child, "done": False, "parked": False})
        patch = {"suspend": child["spec"].get("suspend", False), "parallelism": child["spec"]["parallelism"]}
        known["spec"] = {**known["spec"], **patch}

    def _write_status(self, plan: Plan) -> None:
        self.batch = self.batch.model_copy(update={"status": plan.status})
        self.statuses.append(plan.status)

    # what the rest of the world does

    def tick(self, *, kind: bool = False) -> None:
        """Some time passes; unless the world is kind, things go wrong in it."""
        self.now += timedelta(seconds=self.random.choice([1, 5, 60]))
        run = self._run_job()
        if (
            run is not None
        ):  # the Job controller takes its time to note that it has to stop, and may start pods until then
            run["parked"] = run["spec"]["suspend"] and (run["parked"] or kind or self.random.random() < 0.5)
        for shard in self.shards:
            self._live(shard, run, kind=kind)
        for job in self.jobs.values():
            if job["metadata"]["labels"][labels.ROLE] != Role.RUN and (kind or self.random.random() < 0.5):
                self._finish(job)

    @property
    def active(self) -> int:
        """Pods that run."""
        return sum(shard.running for shard in self.shards)

    def _run_job(self) -> dict[str, Any] | None:
        return next((j for j in self.jobs.values() if j["metadata"]["labels"][labels.ROLE] == Role.RUN), None)

    def _live(self, shard: ShardWork, run: dict[str, Any] | None, *, kind: bool) -> None:
        room = run["spec"]["parallelism"] - self.active if run is not None and not run["parked"] else -len(self.shards)
        if shard.running and room < 0:
            shard.running = not kind and self.random.random() < 0.5  # draining takes its time
            return
        if not shard.running and not shard.committed and room > 0:
            shard.running, shard.attempt = True, shard.attempt + 1
            return
        if not shard.running:
            return
        for _ in range(min(shard.records - shard.done, 10 if kind else self.random.randrange(6))):
            shard.done += 1
            shard.failed += self.random.random() < 0.05
        if not kind and self.random.random() < 0.2:
            shard.running = False  # the pod dies; what it had synced stays
        elif shard.done == shard.records:
            shard.running, shard.committed = False, True
            shard.word_lost = not kind and self.random.random() < 0.2

    def _finish(self, job: dict[str, Any]) -> None:
        if not job["done"] and job["metadata"]["labels"][labels.ROLE] == Role.FINALIZE:
            self.finalized = True
            for shard in self.shards:
                assert not shard.running, "the books are closed only when no worker writes any more"
        job["done"] = True

    def judge(self) -> None:
        """Admission changes its mind: it preempts, lets go on, or gives more or fewer pods."""
        verdicts = [
            Verdict(admitted=True),
            Verdict(admitted=True, pods=self.random.randrange(1, 6)),
            Verdict(admitted=False, reason=Reason.PREEMPTED, message="makes room"),
            Verdict(admitted=False, reason=Reason.QUOTA_EXCEEDED, message="needs 1 GPU, 8 of 8 used", position=1),
        ]
        self.verdict = self.random.choice(verdicts)

    def calm_down(self) -> None:
        """Nothing stands in the way of the batch any more."""
        go_on = {"suspend": False, "parallelism": max(1, self.batch.spec.parallelism)}
        self.batch = self.batch.model_copy(update={"spec": self.batch.spec.model_copy(update=go_on)})
        self.verdict = Verdict(admitted=True)

    def meddle(self) -> None:
        """The user changes their mind."""
        spec = self.batch.spec
        changes: list[dict[str, Any]] = [
            {"suspend": not spec.suspend},
            {"suspend": False},
            {"parallelism": self.random.randrange(5)},
            {"cancel": True},
        ]
        change = self.random.choice(changes)
        self.batch = self.batch.model_copy(update={"spec": spec.model_copy(update=change)})
