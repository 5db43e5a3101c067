"""What hollow workers say: the contract of the workers without any work, driven by a script.

A test says by script how a pod lives; everything else is as a real worker would do it. What shards have committed is kept as on a disk:
a second pod of a committed shard is done at once, in a retry if no record of it has failed, and `finalize` adds up what is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from headrace.api.batchstatus import RecordCounts, RecordProblem, Usage
from headrace.api.evaluation import Feature, Scores
from headrace.api.window import DataWindow
from headrace.api.worker import (
    Compared,
    EvaluationReport,
    ExitCode,
    Failure,
    FinalizeReport,
    JoinReport,
    ListReport,
    PlanReport,
    Report,
    Role,
    SelectReport,
    ShardReport,
    WorkerConfig,
)

from .pod_processes import Machine


@dataclass(frozen=True)
class Fate:
    """How one pod lives and ends; by default it does its work at once and well."""

    exit_code: int = ExitCode.DONE
    failure: Failure | None = None
    """What a pod that gives up says."""
    problems: tuple[RecordProblem, ...] = ()
    """Bad lines that `plan` finds."""
    failed_records: int = 0
    """Records of a shard that end in an error."""
    waits: bool = False
    """Runs until the script lets go, or until it is told to stop; then it drains."""
    seconds: float = 0.0
    """How long it works; it does not hear that it is told to stop meanwhile."""
    lingers: bool = False
    """Told to stop, it does not end before the script lets go."""
    done_so_far: int = 0
    """Records that are on disk while it waits."""
    last_word: bool = True
    """False: it ends well, but its message is lost with it."""
    no_image: bool = False
    """It never starts: its image cannot be pulled."""
    gpu_seconds: int = 0
    """GPU time that it tells of when it is done."""
    begins_late_seconds: float = 0.0
    """Its first record is begun so much later than it seems: what a test would have to wait for."""
    evicted: bool = False
    """Taken off its node for no fault of its own."""
    program: Callable[[Pod], Awaitable[tuple[int, Report | None]]] | None = None
    """What is done in its place, and how that ends: its exit code and its last word."""


@dataclass
class Script:
    """How the pods of one namespace live."""

    loop: asyncio.AbstractEventLoop
    records: int = 10
    """Of the whole input."""
    shards: int = 1
    """That `plan` cuts the input into."""
    disputed: int = 3
    """Records that `select` leaves to the next stage."""
    new_objects: Callable[[DataWindow], int] = lambda _: 0
    """How many objects `list` finds in a window."""
    fate: Callable[[Pod], Fate] = lambda _: Fate()
    machine: Machine | None = None
    """Where real workers run in place of these; None: the pods live as `fate` says."""
    go: asyncio.Event = field(default_factory=asyncio.Event)
    committed: dict[tuple[str, int], ShardReport] = field(default_factory=dict)
    """The disk: what is committed, by batch and shard."""
    rounds: dict[tuple[str, int], int] = field(default_factory=dict)
    """In which retry of the batch that was."""
    pods: list[Pod] = field(default_factory=list)
    """All that ever lived, oldest first."""

    def let_go(self) -> None:
        """Pods that wait go on, also those to come; from any thread."""
        self.loop.call_soon_threadsafe(self.go.set)

    def of_role(self, role: Role) -> list[Pod]:
        """The pods of that role, oldest first."""
        return [pod for pod in self.pods if pod.role == role]


@dataclass(eq=False)
class Pod:
    """One pod, as its worker sees it."""

    namespace: str
    name: str
    uid: str
    role: Role
    shard: int
    attempt: int
    """Which pod of this Job and shard, from 1."""
    config: WorkerConfig
    address: str
    obj: dict[str, Any]
    env: dict[str, str] = field(default_factory=dict)
    """What its container is told."""
    process: int | None = None
    """Of a pod of a warm pool, which is a real worker."""
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is told to stop."""
    said: ShardReport | None = None
    """What its metrics port says."""

    async def waits_for(self, script: Script) -> bool:
        """Wait: True when the script lets the pod go on, False when it is told to stop."""
        waits = [asyncio.create_task(script.go.wait()), asyncio.create_task(self.stopped.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return not self.stopped.is_set()
        finally:
            for wait in waits:
                wait.cancel()


def so_far(pod: Pod, script: Script, fate: Fate) -> ShardReport:
    """What a pod says that is not done."""
    total, done = _share(pod, script), fate.done_so_far
    counts = RecordCounts(total=total, succeeded=done, pending=total - done)
    speed = "2.5" if fate.waits else "0"
    return ShardReport(shard=pod.shard, attempt=pod.attempt, records=counts, records_per_second=speed)


def giving_up(pod: Pod, fate: Fate) -> Report | None:
    """The last word of a pod that cannot go on; None for one that crashed."""
    if fate.failure is None:
        return None
    if pod.role == Role.PLAN:
        return PlanReport(failure=fate.failure)
    if pod.role == Role.FINALIZE:
        return FinalizeReport(failure=fate.failure)
    if pod.role == Role.JOIN:
        return JoinReport(failure=fate.failure)
    if pod.role == Role.SELECT:
        return SelectReport(failure=fate.failure)
    if pod.role == Role.LIST:
        return ListReport(failure=fate.failure)
    return ShardReport(shard=pod.shard, attempt=pod.attempt, failure=fate.failure)


def work(pod: Pod, script: Script, fate: Fate) -> Report:
    """Do the pod's work; its last word."""
    if pod.role == Role.PLAN:
        if fate.problems:
            return PlanReport(error_count=len(fate.problems), errors=fate.problems)
        return PlanReport(records=script.records, shards=script.shards)
    if pod.role == Role.JOIN:
        return _joined(script, pod)
    if pod.role == Role.SELECT:
        assert pod.config.fan_out is not None
        spared = script.records - script.disputed
        return SelectReport(stage=pod.config.fan_out.stage, records=script.disputed, spared=spared)
    if pod.role == Role.LIST:
        window = pod.config.input.window
        assert window is not None
        found = script.new_objects(window)
        return ListReport(window=window, objects=found, oldest_time=window.start_time if found else None)
    if pod.role == Role.RUN:
        return _do_shard(pod, script, fate)
    return _sums(script, pod.config.batch.uid).model_copy(update={"evaluation": _evaluation(pod, script)})


def _do_shard(pod: Pod, script: Script, fate: Fate) -> ShardReport:
    """What is committed already, unless records of it have failed in an earlier retry than this pod's."""
    where, round_ = (pod.config.batch.uid, pod.shard), pod.config.round
    if where not in script.committed or (script.committed[where].records.failed and script.rounds[where] < round_):
        script.committed[where], script.rounds[where] = _commit(pod, script, fate), round_
    return script.committed[where]


def _commit(pod: Pod, script: Script, fate: Fate) -> ShardReport:
    total = _share(pod, script)
    return ShardReport(
        shard=pod.shard,
        attempt=pod.attempt,
        committed=True,
        records=RecordCounts(total=total, succeeded=total - fate.failed_records, failed=fate.failed_records),
        usage=Usage(prompt_tokens=7 * total, completion_tokens=3 * total, gpu_seconds=fate.gpu_seconds),
        batches=1,
        batched_records=total,
        first_record_time=datetime.now(UTC) + timedelta(seconds=fate.begins_late_seconds),
    )


def _sums(script: Script, uid: str) -> FinalizeReport:
    done = [report for (batch, _), report in script.committed.items() if batch == uid]
    succeeded = sum(report.records.succeeded for report in done)
    return FinalizeReport(
        records=RecordCounts(total=script.records, succeeded=succeeded, failed=script.records - succeeded),
        usage=sum((report.usage for report in done), Usage()),
        batches=len(done),
        batched_records=sum(report.batched_records for report in done),
    )


def _evaluation(pod: Pod, script: Script) -> EvaluationReport | None:
    """Every other answer is what was expected, and where there is a reference the language has drifted."""
    spec, half = pod.config.evaluation, script.records // 2
    if spec is None or pod.config.stop_reason is not None:
        return None
    rates = dict.fromkeys(("accuracy", "precision", "recall", "f1"), "0.5000")
    drift = (Compared(feature=Feature.LANGUAGE, psi="0.7000", chance="0.0100"),) if spec.reference is not None else ()
    return EvaluationReport(scores=Scores(expected=script.records, correct=half, **rates), compared=drift)


def _joined(script: Script, pod: Pod) -> JoinReport:
    """Every record has an answer if any branch has left an output."""
    assert pod.config.fan_out is not None
    any_joined = any(branch.joined for branch in pod.config.fan_out.branches)
    succeeded = script.records if any_joined else 0
    counts = RecordCounts(total=script.records, succeeded=succeeded, failed=script.records - succeeded)
    return JoinReport(records=counts)


def _share(pod: Pod, script: Script) -> int:
    """Records of the pod's shard."""
    shards = min(pod.config.shards, script.records)
    share, rest = divmod(script.records, shards)
    return share + (pod.shard < rest)
