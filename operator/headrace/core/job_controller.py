"""What the Job controller of Kubernetes does, for the features that we render, as one pure function.

A cluster has that controller; a laptop has not, so there the local shell calls `step` and starts and stops what it says. Both
then mean the same by `completions`, `parallelism`, `suspend`, `backoffLimitPerIndex` and `podFailurePolicy`. Everything follows
from the Job and from the pods it has had: forget no pod while its Job lives. An index never has two pods at once, terminating
ones included (`podReplacementPolicy: Failed`). A pod whose end is ignored is replaced at once, any other after a delay that doubles.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from headrace.api.base import JsonObject
from headrace.api.ranges import format_ranges

UNLIMITED = 2**31 - 1
_DEFAULT_BACKOFF_LIMIT = 6
_KNOWN_FIELDS = frozenset(
    {
        "backoffLimit",
        "backoffLimitPerIndex",
        "completionMode",
        "completions",
        "parallelism",
        "podFailurePolicy",
        "podReplacementPolicy",
        "suspend",
        "template",
    }
)


class PodPhase(StrEnum):
    """How far a pod is."""

    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class PodState:
    """One pod of a Job, running or ended."""

    name: str
    index: int
    """Its completion index; 0 for a Job that is not Indexed."""
    phase: PodPhase = PodPhase.RUNNING
    terminating: bool = False
    """Told to stop and not gone yet."""
    exit_code: int | None = None
    """None while it runs, and for a pod that was lost without a word."""
    disrupted: bool = False
    """Condition DisruptionTarget: it ended for no fault of its own."""
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RestartDelay:
    """How long an index rests after its n-th failure: base · 2ⁿ⁻¹, at most the cap. The defaults are those of Kubernetes."""

    base: timedelta = timedelta(seconds=10)
    cap: timedelta = timedelta(minutes=10)

    def after(self, failures: int) -> timedelta:
        """The rest after so many failures."""
        return min(self.cap, self.base * (1 << min(failures - 1, 30)))


@dataclass(frozen=True, slots=True)
class JobStep:
    """What is to be done for a Job now, and what its status is."""

    status: JsonObject
    """The fields of a Job's own status."""
    start: tuple[int, ...] = ()
    """Indexes to start a pod for, in this order."""
    stop: tuple[str, ...] = ()
    """Names of pods to tell to stop."""
    retry_at: datetime | None = None
    """When the next index that rests after a failure may start again."""


def step(job: Mapping[str, Any], pods: Sequence[PodState], now: datetime, delay: RestartDelay | None = None) -> JobStep:
    """The next step for a `batch/v1` Job with these pods. Raises `ValueError` for a Job that asks for what is not done here."""
    spec = _Spec.of(job)
    slots = _slots(spec, pods, delay or RestartDelay())
    running = [pod for pod in pods if pod.phase == PodPhase.RUNNING]
    ended = _ended_before(job) or _ending(spec, slots, pods)
    status = _status(spec, slots, running, None if ended is not None and running else ended)
    if ended is not None or spec.suspend:
        return JobStep(status, stop=_names(pod for pod in running if not pod.terminating))
    start = _startable(slots, now, room=spec.parallelism - len(running))
    resting = [slot.retry_at for slot in slots if slot.missing and slot.retry_at is not None and slot.retry_at > now]
    return JobStep(status, tuple(start), _surplus(spec, slots), min(resting, default=None))


@dataclass(frozen=True, slots=True)
class _Spec:
    """The fields of a Job's spec, with their defaults."""

    indexed: bool
    completions: int
    parallelism: int
    suspend: bool
    limit_per_index: int | None
    limit: int
    rules: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, job: Mapping[str, Any]) -> _Spec:
        spec = job["spec"]
        unknown = sorted(spec.keys() - _KNOWN_FIELDS)
        if unknown:
            raise ValueError(f"Job {job['metadata']['name']}: spec.{unknown[0]} is not supported outside a cluster")
        per_index = spec.get("backoffLimitPerIndex")
        return cls(
            indexed=spec.get("completionMode") == "Indexed",
            completions=spec.get("completions", 1),
            parallelism=spec.get("parallelism", 1),
            suspend=spec.get("suspend", False),
            limit_per_index=per_index,
            limit=spec.get("backoffLimit", _DEFAULT_BACKOFF_LIMIT if per_index is None else UNLIMITED),
            rules=spec.get("podFailurePolicy", {}).get("rules", ()),
        )


@dataclass(frozen=True, slots=True)
class _Slot:
    """The pods of one index; a Job that is not Indexed has one slot for all of its completions."""

    index: int
    wanted: int
    succeeded: int
    running: tuple[PodState, ...]
    failures: int
    given_up: bool
    retry_at: datetime | None

    @property
    def missing(self) -> int:
        return 0 if self.given_up else max(0, self.wanted - self.succeeded - len(self.running))

    @property
    def done(self) -> bool:
        return self.succeeded >= self.wanted


@dataclass(frozen=True, slots=True)
class _End:
    """The condition that a finished Job carries."""

    type: str
    reason: str
    message: str

    def condition(self) -> JsonObject:
        return {"type": self.type, "status": "True", "reason": self.reason, "message": self.message}


def _slots(spec: _Spec, pods: Sequence[PodState], delay: RestartDelay) -> list[_Slot]:
    by_index: dict[int, list[PodState]] = defaultdict(list)
    for pod in pods:
        by_index[pod.index].append(pod)
    if not spec.indexed:
        return [_slot(spec, 0, spec.completions, by_index[0], delay)]
    return [_slot(spec, index, 1, by_index.get(index, ()), delay) for index in range(spec.completions)]


def _slot(spec: _Spec, index: int, wanted: int, pods: Sequence[PodState], delay: RestartDelay) -> _Slot:
    succeeded = sum(pod.phase == PodPhase.SUCCEEDED for pod in pods)
    actions = [(_action(spec.rules, pod), pod) for pod in pods if pod.phase == PodPhase.FAILED]
    counted = [pod for action, pod in actions if action != "Ignore"]
    over_limit = spec.limit_per_index is not None and len(counted) > spec.limit_per_index
    last = max((pod.finished_at for pod in counted if pod.finished_at is not None), default=None)
    return _Slot(
        index=index,
        wanted=wanted,
        succeeded=min(wanted, succeeded),
        running=tuple(pod for pod in pods if pod.phase == PodPhase.RUNNING),
        failures=len(counted),
        given_up=succeeded < wanted and (over_limit or any(action == "FailIndex" for action, _ in actions)),
        retry_at=last + delay.after(len(counted)) if last is not None else None,
    )


def _action(rules: Iterable[Mapping[str, Any]], pod: PodState) -> str:
    """The action of the first rule that matches a failed pod; `Count` when none does."""
    return next((rule["action"] for rule in rules if _matches(rule, pod)), "Count")


def _matches(rule: Mapping[str, Any], pod: PodState) -> bool:
    if "onPodConditions" in rule:
        return pod.disrupted and any(c["type"] == "DisruptionTarget" for c in rule["onPodConditions"])
    if not pod.exit_code:
        return False
    codes = rule["onExitCodes"]
    return bool((pod.exit_code in codes["values"]) == (codes["operator"] == "In"))


def _ended_before(job: Mapping[str, Any]) -> _End | None:
    """How a finished Job has ended: it never changes its mind."""
    conditions = job.get("status", {}).get("conditions", ())
    final = next((c for c in conditions if c["type"] in ("Complete", "Failed") and c["status"] == "True"), None)
    return _End(final["type"], final["reason"], final["message"]) if final is not None else None


def _ending(spec: _Spec, slots: Sequence[_Slot], pods: Sequence[PodState]) -> _End | None:
    """Why nothing more is to be started; None while there is work to do."""
    fatal = (pod for pod in pods if pod.phase == PodPhase.FAILED and _action(spec.rules, pod) == "FailJob")
    culprit = next(fatal, None)
    if culprit is not None:
        why = f"pod {culprit.name} failed with exit code {culprit.exit_code} matching a FailJob rule"
        return _End("Failed", "PodFailurePolicy", why)
    if all(slot.done for slot in slots):
        return _End("Complete", "CompletionsReached", "Reached expected number of succeeded pods")
    if sum(slot.failures for slot in slots) > spec.limit:
        return _End("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    if spec.indexed and all(slot.done or slot.given_up for slot in slots):
        return _End("Failed", "FailedIndexes", "Job has failed indexes")
    return None


def _startable(slots: Iterable[_Slot], now: datetime, room: int) -> list[int]:
    start: list[int] = []
    for slot in slots:
        rested = slot.retry_at is None or slot.retry_at <= now
        start += [slot.index] * (min(slot.missing, max(0, room - len(start))) if rested else 0)
    return start


def _surplus(spec: _Spec, slots: Iterable[_Slot]) -> tuple[str, ...]:
    """Pods over `parallelism`, those of the highest indexes first, and pods of which nothing is wanted any more."""
    unwanted, wanted = [], []
    for slot in slots:
        active = [pod for pod in slot.running if not pod.terminating]
        keep = 0 if slot.given_up else slot.wanted - slot.succeeded
        wanted += active[:keep]
        unwanted += active[keep:]
    return _names([*unwanted, *wanted[max(0, spec.parallelism) :]])


def _names(pods: Iterable[PodState]) -> tuple[str, ...]:
    return tuple(pod.name for pod in pods)


def _conditions(spec: _Spec, ended: _End | None) -> list[JsonObject]:
    if ended is not None:
        return [ended.condition()]
    return [_End("Suspended", "JobSuspended", "Job suspended").condition()] if spec.suspend else []


def _status(spec: _Spec, slots: Sequence[_Slot], running: Sequence[PodState], ended: _End | None) -> JsonObject:
    status: JsonObject = {
        "active": sum(not pod.terminating for pod in running),
        "terminating": sum(pod.terminating for pod in running),
        "succeeded": sum(slot.succeeded for slot in slots),
        "failed": sum(slot.failures for slot in slots),
        "conditions": _conditions(spec, ended),
    }
    if spec.indexed:
        status["completedIndexes"] = format_ranges(slot.index for slot in slots if slot.done)
    if spec.limit_per_index is not None:
        status["failedIndexes"] = format_ranges(slot.index for slot in slots if slot.given_up)
    return status
