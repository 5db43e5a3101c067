"""A cluster with many batches and one bulkhead, to try admission in together with the core that acts on its verdicts.

It is as unkind as a real one: watch events come late or never, pods take their time to stop, models break and are mended, and the operator
dies between any two writes and begins anew from what is in the statuses. The truth is in the pods, and a test holds it against the limits.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from admission_builders import a_bulkhead
from builders import NOON, PLACE, a_batch
from headrace.api.batchstatus import RecordCounts
from headrace.api.bulkhead import Bulkhead
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.worker import ExitCode, Failure, Role, ShardReport
from headrace.core.admission.book import Book
from headrace.core.admission.demand import Surroundings, demand_of, held_pods
from headrace.core.observed import JobSnapshot, Observed, Verdict, WorkerReport
from headrace.core.reconcile import reconcile

TICK = timedelta(seconds=5)
RECORDS = 4
"""Records of each shard."""


class OperatorDied(Exception):
    """In the middle of its work."""


@dataclass
class Task:
    """One batch in the cluster: the object, its Job, and the truth about its shards."""

    batch: InferenceBatch
    work: list[int]
    """Ticks of work that each shard still needs."""
    running: set[int] = field(default_factory=set)
    job: dict[str, Any] | None = None
    parked: bool = False
    failed: bool = False

    @property
    def snapshot(self) -> JobSnapshot | None:
        """The Job, as an API server shows it."""
        if self.job is None:
            return None
        done = frozenset(index for index, left in enumerate(self.work) if not left)
        return replace(
            JobSnapshot.from_object(self.job),
            active=len(self.running),
            parked=self.parked,
            failed=self.failed,
            complete=len(done) == len(self.work),
            succeeded_indexes=done,
        )

    def reports(self) -> tuple[WorkerReport, ...]:
        """What its pods have said."""
        counts = RecordCounts(total=RECORDS, succeeded=RECORDS)
        done = [index for index, left in enumerate(self.work) if not left]
        said = [ShardReport(shard=index, attempt=1, committed=True, records=counts) for index in done]
        found = [WorkerReport(Role.RUN, report, final=True, exit_code=0) for report in said]
        if self.failed:
            report = ShardReport(shard=0, failure=Failure(reason="ModelNotFound", message="no such model"))
            found.append(WorkerReport(Role.RUN, report, final=True, exit_code=ExitCode.JOB_FAILED))
        return tuple(found)


class Fleet:
    """A world that is driven by a seed."""

    def __init__(self, seed: int, bulkhead: Bulkhead | None = None, *, kind: bool = False) -> None:
        self.random = random.Random(seed)
        self.kind = kind
        self.bulkhead = bulkhead or a_random_bulkhead(self.random)
        self.now: datetime = NOON
        self.tasks: dict[str, Task] = {}
        self.broken: dict[str, datetime] = {}
        self.late: list[tuple[datetime, str]] = []
        self.deaths = 0
        self.probes: dict[tuple[str, datetime | None], set[str]] = {}
        """Who was let through by a breaker that was half-open, by the time when it had opened."""
        self.converged = 0
        self.restart()

    # the operator

    def restart(self) -> None:
        """A new operator process lists everything and begins with that."""
        self.book = Book()
        self.cache = {key: task.batch for key, task in self.tasks.items()}
        self.jobs = {key: task.snapshot for key, task in self.tasks.items()}
        demands = [demand_of(batch, Surroundings(self.now, "worker")) for batch in self.cache.values()]
        self.book.load(demands, [self.bulkhead], self.now)
        self.dirty: dict[str, None] = dict.fromkeys(self.cache)
        self.late = []

    def operate(self) -> None:
        """Some looks, in any order; the process may die in any of them."""
        self.book.tick(self.now)
        self._spread()
        for _ in range(len(self.dirty) if self.kind else self.random.randrange(len(self.dirty) + 1)):
            key = next(iter(self.dirty)) if self.kind else self.random.choice(list(self.dirty))
            del self.dirty[key]
            try:
                self.converge(key)
            except OperatorDied:
                self.deaths += 1
                self.restart()
                return
            if not self.dirty:
                return

    def converge(self, key: str) -> Verdict:
        """One look at a batch, and all that follows."""
        self.converged += 1
        batch, job = self.cache[key], self.jobs[key]
        verdict = self.book.look(key, self.now)
        self._spread()
        for name, breaker in self.book.breakers.known.items():
            if breaker.probe == key and verdict.admitted and not held_pods(batch):
                self.probes.setdefault((name, breaker.opened_at), set()).add(key)
        jobs = (job,) if job is not None else ()
        observed = Observed(batch, self.now, jobs, self.tasks[key].reports() if job is not None else (), verdict, PLACE)
        plan = reconcile(observed)
        for child in plan.children or ():
            if child["kind"] == "Job" and child["metadata"]["name"].endswith("-run"):
                self._may_die()
                self._apply(key, child)
        if plan.status != batch.status:
            self._may_die()
            self._write(key, batch.model_copy(update={"status": plan.status}))
            self._may_die()
        self.book.settle(key, self.now)
        self._spread()
        return verdict

    def _apply(self, key: str, child: dict[str, Any]) -> None:
        task = self.tasks[key]
        if task.job is None:
            task.job = child
        patch = {"suspend": child["spec"]["suspend"], "parallelism": child["spec"]["parallelism"]}
        task.job = {**task.job, "spec": {**task.job["spec"], **patch}}
        self.jobs[key] = task.snapshot

    def _write(self, key: str, batch: InferenceBatch) -> None:
        self.tasks[key].batch = self.cache[key] = batch
        self._tell(key)

    def _tell(self, key: str) -> None:
        self.dirty[key] = None
        self.book.put(demand_of(self.cache[key], Surroundings(self.now, "worker")), self.now)
        self._spread()

    def _spread(self) -> None:
        self.dirty |= dict.fromkeys(key for key in sorted(self.book.take_changed()) if key in self.cache)

    def _may_die(self) -> None:
        if not self.kind and self.random.random() < 0.01:
            raise OperatorDied

    # the rest of the world

    def submit(self, key: str, *, shards: int, work: int, **spec: Any) -> None:
        """A user makes a batch, whose input is found good."""
        namespace, name = key.split("/")
        model = spec.pop("model", "good")
        builder = a_batch(name).with_spec(model={"name": model}, bulkheadName="prod", **spec)
        builder = builder.with_meta(namespace=namespace, creationTimestamp=f"{self.now:%Y-%m-%dT%H:%M:%SZ}")
        builder = builder.with_spec(shards=shards, parallelism=spec.get("parallelism", shards))
        batch = builder.validated(shards * RECORDS).build()
        conditions = tuple(c.model_copy(update={"last_transition_time": self.now}) for c in batch.status.conditions)
        batch = batch.model_copy(update={"status": batch.status.model_copy(update={"conditions": conditions})})
        self.tasks[key] = Task(batch, [work] * shards)
        self._news(key)

    def change(self, key: str, **spec: Any) -> None:
        """A user changes a spec; snake_case."""
        task = self.tasks[key]
        task.batch = task.batch.model_copy(update={"spec": task.batch.spec.model_copy(update=spec)})
        self._news(key)

    def tick(self) -> None:
        """Some time passes."""
        self.now += TICK
        for key, task in self.tasks.items():
            if task.job is not None and self._live(task):
                self._news(key)
        due, self.late = [it for it in self.late if it[0] <= self.now], [it for it in self.late if it[0] > self.now]
        for _, key in due:
            self._hear(key)

    def settle(self) -> None:
        """All is heard and looked at, until nothing changes any more."""
        kind, self.kind = self.kind, True
        for key in self.tasks:
            self._hear(key)
        for _ in range(20):
            if not self.dirty:
                break
            self.operate()
        self.kind = kind

    def _news(self, key: str) -> None:
        """The watch tells the operator, at once, late, or never; what is lost comes with the next resync."""
        delay = 0 if self.kind else self.random.choice([0, 0, 0, 1, 2, 20])
        if delay:
            self.late.append((self.now + delay * TICK, key))
        else:
            self._hear(key)

    def _hear(self, key: str) -> None:
        task = self.tasks[key]
        self.cache[key], self.jobs[key] = task.batch, task.snapshot
        self._tell(key)

    def _live(self, task: Task) -> bool:
        """What the Job controller and the pods do; whether there is news."""
        assert task.job is not None
        spec, before = task.job["spec"], (frozenset(task.running), task.parked, task.failed)
        task.parked = spec["suspend"] and (task.parked or self.kind or self.random.random() < 0.5)
        broken = self.broken.get(task.batch.spec.model.name, NOON) > self.now
        for index in [i for i in task.running if not task.failed]:
            task.work[index] -= 1
            if not task.work[index]:
                task.running.discard(index)
        if task.running and broken:
            task.failed, task.running = True, set()
        room = 0 if task.parked or task.failed else spec["parallelism"]
        for index in sorted(task.running, reverse=True)[: max(0, len(task.running) - room)]:
            if self.kind or self.random.random() < 0.5:  # a pod takes its time to put its work away
                task.running.discard(index)
        for index, left in enumerate(task.work):
            if left and index not in task.running and len(task.running) < room:
                task.running.add(index)
        return before != (frozenset(task.running), task.parked, task.failed)

    # the truth

    def pods(self) -> Counter[str]:
        """Pods that run, by namespace."""
        running = Counter[str]()
        for task in self.tasks.values():
            running[task.batch.metadata.namespace] += len(task.running)
        return running

    def gpus(self, of: Callable[[Task], int]) -> Counter[str]:
        """GPUs by namespace, counting so many pods of each."""
        held = Counter[str]()
        for task in self.tasks.values():
            held[task.batch.metadata.namespace] += of(task) * task.batch.spec.gpus
        return held

    @property
    def unfinished(self) -> list[str]:
        """Batches that have not ended."""
        return [key for key, task in self.tasks.items() if not task.batch.status.finished]


def running_pods(task: Task) -> int:
    """Pods that run."""
    return len(task.running)


def promised_pods(task: Task) -> int:
    """Pods that the status speaks of."""
    return held_pods(task.batch)


def a_random_bulkhead(dice: random.Random) -> Bulkhead:
    """Limits of all sorts."""
    gpus = dice.randrange(3, 13)
    capacity: dict[str, Any] = {"gpus": gpus}
    if dice.random() < 0.3:
        capacity["startsPerMinute"] = dice.randrange(1, 5)
    if dice.random() < 0.3:
        capacity["batches"] = dice.randrange(2, 6)
    if dice.random() < 0.3:
        capacity["pods"] = dice.randrange(3, 13)
    spec: dict[str, Any] = {"capacity": capacity, "reserveAfterSeconds": dice.choice([30, 120, 600])}
    if dice.random() < 0.4:
        spec["perNamespace"] = {"gpus": dice.randrange(2, gpus + 1)}
    if dice.random() < 0.3:
        spec["preemption"] = "Never"
    if dice.random() < 0.2:
        spec["ordering"] = dice.choice([["Priority", "Age"], ["FairShare"], ["Priority", "Deadline"]])
    return a_bulkhead(**spec)
