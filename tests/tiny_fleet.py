"""A cluster reduced to what admission sees of it, so that very many of them can be lived through.

`Fleet` runs the whole decision about each batch; here a batch is its demand, its Job is a few numbers, and only admission itself, with what
a status must hold while a Job drains, is the real code. It is as unkind: news come late or are lost, pods take their time to stop, models
break, and the operator dies between any two writes and begins anew from what is in the statuses.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from admission_builders import with_gpus
from builders import NOON
from headrace.api.bulkhead import Bulkhead
from headrace.api.worker import Role
from headrace.core.admission.book import Book
from headrace.core.admission.demand import Demand, Evidence, Shape
from headrace.core.breaker import FAILURES, State
from headrace.core.holding import holding
from headrace.core.observed import JobSnapshot, Verdict

TICK = timedelta(seconds=10)


class OperatorDied(Exception):
    """In the middle of its work."""


class Status(NamedTuple):
    """What is written down about a batch."""

    since: datetime
    left: int
    """Shards that are not done, as far as was seen."""
    held: int = 0
    admitted: bool = False
    started: datetime | None = None
    ended: datetime | None = None
    failed: bool = False


@dataclass(slots=True)
class Task:
    """One batch: what it asks for, what is written about it, and the truth."""

    asked: Demand
    status: Status
    work: list[int]
    """Ticks of work that each shard still needs."""
    at_least: int = 1
    running: set[int] = field(default_factory=set)
    pods: int | None = None
    """What its Job may have at once; None while there is no Job."""
    suspended: bool = False
    parked: bool = False
    failed: bool = False
    _read: tuple[Status, Demand] | None = None

    @property
    def job(self) -> JobSnapshot | None:
        """As the API server shows it."""
        if self.pods is None:
            return None
        done = frozenset(index for index, left in enumerate(self.work) if not left)
        return JobSnapshot(
            "run",
            "",
            Role.RUN,
            suspended=self.suspended,
            parallelism=self.pods,
            active=len(self.running),
            succeeded_indexes=done,
            complete=len(done) == len(self.work),
            failed=self.failed,
            parked=self.parked,
        )

    def demand(self, status: Status) -> Demand:
        """What a status says, as admission reads it."""
        if self._read is None or self._read[0] is not status:
            self._read = (status, self._demand(status))
        return self._read[1]

    def _demand(self, status: Status) -> Demand:
        evidence: tuple[Evidence, ...] = ()
        model = self.asked.shape.breakers[0]
        if status.ended is not None:
            evidence = (Evidence(model, ok=not status.failed, at=status.ended),)
        least = max(1, min(self.at_least, status.left))
        return replace(
            self.asked,
            shape=Shape(*self.asked.shape.of_one_pod, least, self.asked.shape.breakers),
            pods=max(1, status.left),
            since=status.since,
            wants=status.ended is None,
            held=status.held,
            admitted=status.admitted,
            started=status.started,
            evidence=evidence,
        )


class TinyFleet:
    """A world that is driven by a seed."""

    def __init__(self, seed: int, bulkhead: Bulkhead) -> None:
        self.random = random.Random(seed)
        self.bulkhead, self.now, self.kind = bulkhead, NOON, False
        self.tasks: dict[str, Task] = {}
        self.broken: dict[str, datetime] = {}
        self.late: list[tuple[datetime, str]] = []
        self.probes: dict[tuple[str, datetime | None], set[str]] = {}
        """Who was let through by a breaker that was half-open, by the time when it had opened."""
        self.deaths = self.looks = 0
        self.restart()

    # the operator

    def restart(self) -> None:
        """A new process lists everything and begins with that."""
        self.book, self.late = Book(), []
        self.seen = {key: (task.status, task.job) for key, task in self.tasks.items()}
        self.book.load((task.demand(task.status) for task in self.tasks.values()), (self.bulkhead,), self.now)
        self.dirty = dict.fromkeys(self.seen)

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

    def converge(self, key: str) -> None:
        """One look at a batch, and all that follows: first the Job, then the status."""
        status, job = self.seen[key]
        if status.ended is not None:
            return
        self.looks += 1
        verdict = self.book.look(key, self.now)
        self._spread()
        self._note_probe(key, verdict, status)
        granted = (verdict.pods or 0) if verdict.admitted else 0
        self._command(key, min(granted, status.held), job)
        after = self._next_status(status, granted, job, len(self.tasks[key].work))
        if after != status:
            self._may_die()
            self.tasks[key].status = after
            self._hear(key)
            self._may_die()
        self.book.settle(key, self.now)
        self._spread()

    def _command(self, key: str, pods: int, job: JobSnapshot | None) -> None:
        task = self.tasks[key]
        if (job is None and not pods) or (job is not None and job.finished):
            return
        if (pods or task.pods, not pods) != (task.pods, task.suspended):
            self._may_die()
            task.pods, task.suspended = pods or task.pods, not pods
            self.seen[key] = (self.seen[key][0], task.job)

    def _next_status(self, before: Status, granted: int, job: JobSnapshot | None, shards: int) -> Status:
        left = shards - len(job.succeeded_indexes) if job is not None else shards
        if job is not None and job.finished:
            return before._replace(left=left, held=0, admitted=False, ended=self.now, failed=job.failed)
        return before._replace(
            left=left,
            held=holding(before.held, granted, job, shards),
            admitted=granted > 0,
            started=self.now if granted and not before.held else before.started,
            since=before.since if before.admitted == (granted > 0) else self.now,
        )

    def _note_probe(self, key: str, verdict: Verdict, status: Status) -> None:
        for name, breaker in self.book.breakers.known.items():
            if breaker.probe == key and verdict.admitted and not status.held:
                self.probes.setdefault((name, breaker.opened_at), set()).add(key)

    def _spread(self) -> None:
        if self.book.decided or self.book.outdated:
            self.dirty |= dict.fromkeys(key for key in sorted(self.book.take_changed()) if key in self.seen)

    def _may_die(self) -> None:
        if not self.kind and self.random.random() < 0.02:
            raise OperatorDied

    # the rest of the world

    def submit(self, namespace: str, shards: int, model: str, **asked: int) -> None:
        """A user makes a batch, whose input is found good."""
        key = f"{namespace}/{len(self.tasks)}"
        shape = Shape("nvidia.com/gpu", asked["gpus"], 0, asked["at_least"], (model,))
        demand = Demand(
            key=key,
            namespace=namespace,
            bulkhead=self.bulkhead.name,
            shape=shape,
            pods=shards,
            priority=asked["priority"],
            created=self.now,
            since=self.now,
            run_seconds=60.0,
        )
        self.tasks[key] = Task(demand, Status(self.now, shards), [asked["work"]] * shards, asked["at_least"])
        self._news(key)

    def open_breaker(self, model: str) -> None:
        """Batches with that model have failed just now, one after the other."""
        for _ in range(FAILURES):
            self.submit("z", 1, model, gpus=1, at_least=1, priority=0, work=1)
            task = self.tasks[next(reversed(self.tasks))]
            task.status = task.status._replace(ended=self.now, failed=True)
            self.now += timedelta(seconds=1)
        self.restart()

    def tick(self) -> None:
        """Some time passes."""
        self.now += TICK
        for key, task in self.tasks.items():
            if task.pods is not None and task.status.ended is None and self._live(task):
                self._news(key)
        due, self.late = [it for it in self.late if it[0] <= self.now], [it for it in self.late if it[0] > self.now]
        for _, key in due:
            self._hear(key)

    def settle(self) -> None:
        """All is heard and looked at, until nothing changes any more."""
        for key in self.unfinished:
            self._hear(key)
        self.calm_down()

    def calm_down(self) -> None:
        """What was heard is looked at, until nothing changes any more."""
        kind, self.kind = self.kind, True
        for _ in range(20):
            self.operate()
            if not self.dirty:
                break
        self.kind = kind

    def _news(self, key: str) -> None:
        """The watch tells the operator, at once, late, or not before it lists again."""
        delay = 0 if self.kind else self.random.choice((0, 0, 0, 1, 2, 20))
        if delay:
            self.late.append((self.now + delay * TICK, key))
        else:
            self._hear(key)

    def _hear(self, key: str) -> None:
        task = self.tasks[key]
        self.seen[key] = (task.status, task.job)
        self.dirty[key] = None
        self.book.put(task.demand(task.status), self.now)
        self._spread()

    def _live(self, task: Task) -> bool:
        """What the Job controller and the pods do; whether there is news."""
        before = (len(task.running), sum(task.work), task.parked, task.failed)
        slow = not self.kind
        task.parked = task.suspended and (task.parked or not slow or self.random.random() < 0.5)
        for index in list(task.running):
            task.work[index] -= 1
            if not task.work[index]:
                task.running.discard(index)
        if task.running and self.broken.get(task.asked.shape.breakers[0], NOON) > self.now:
            task.failed, task.running = True, set()
        room = 0 if task.parked or task.failed else task.pods or 0
        for index in sorted(task.running, reverse=True)[: max(0, len(task.running) - room)]:
            if not slow or self.random.random() < 0.5:  # a pod takes its time to put its work away
                task.running.discard(index)
        for index, left in enumerate(task.work):
            if left and index not in task.running and len(task.running) < room:
                task.running.add(index)
        return before != (len(task.running), sum(task.work), task.parked, task.failed)

    # the truth

    @property
    def unfinished(self) -> list[str]:
        """Batches that have not ended."""
        return [key for key, task in self.tasks.items() if task.status.ended is None]

    def gpus(self, *, promised: bool) -> Counter[str]:
        """GPUs by namespace: those that statuses speak of, or those that pods have."""
        held = Counter[str]()
        for task in self.tasks.values():
            pods = task.status.held if promised else len(task.running)
            if pods:
                held[task.asked.namespace] += pods * task.asked.shape.gpus
        return held

    def half_open(self, key: str) -> bool:
        """Whether a probe may be sent on behalf of that batch, and none has been."""
        known = self.book.breakers.known
        found = [known[name] for name in self.tasks[key].asked.shape.breakers if name in known]
        return any(breaker.state(self.now) == State.HALF_OPEN and breaker.probe is None for breaker in found)


def some_bulkheads(count: int) -> list[Bulkhead]:
    """Limits of all sorts."""
    dice = random.Random(count)
    return [_a_bulkhead(dice) for _ in range(count)]


def _a_bulkhead(dice: random.Random) -> Bulkhead:
    gpus = dice.randrange(2, 9)
    spec: dict[str, object] = {"reserveAfterSeconds": dice.choice([30, 60, 120])}
    capacity: dict[str, int] = {"gpus": gpus}
    if dice.random() < 0.25:
        capacity["batches"] = dice.randrange(2, 5)
    if dice.random() < 0.25:
        capacity["startsPerMinute"] = dice.randrange(1, 5)
    if dice.random() < 0.3:
        spec["perNamespace"] = {"gpus": dice.randrange(2, gpus + 1)}
    if dice.random() < 0.3:
        spec["preemption"] = "Never"
    if dice.random() < 0.2:
        spec["ordering"] = dice.choice([["Priority", "Age"], ["FairShare"], ["Deadline", "FairShare", "Age"]])
    return with_gpus(gpus, capacity=capacity, **spec)
