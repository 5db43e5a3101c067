"""What `reconcile` looks at: one frozen snapshot of an InferenceBatch and of everything that belongs to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

from headrace.api import labels
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.ranges import parse_ranges
from headrace.api.reasons import Reason
from headrace.api.worker import FinalizeReport, PlanReport, Report, Role, ShardReport
from headrace.core.kueue.workload import KueueView
from headrace.core.tracing.settings import Tracing


@dataclass(frozen=True, slots=True)
class JobSnapshot:
    """A child Job, as far as decisions need it."""

    name: str
    uid: str
    role: Role
    suspended: bool = False
    parallelism: int = 1
    active: int = 0
    """Pods that run or are about to, terminating ones included."""
    succeeded_indexes: frozenset[int] = frozenset()
    """Of the run Job: the shards that are done."""
    failed_indexes: frozenset[int] = frozenset()
    """Of the run Job: the shards that were given up."""
    complete: bool = False
    failed: bool = False
    failure_message: str = ""
    round: int = 0
    """Which retry of the batch it belongs to."""
    stop_reason: str = ""
    """For `finalize`: why the batch ends, as the Job was told."""
    deleting: bool = False
    parked: bool = False
    """The Job controller has taken note that it is suspended, and starts nothing any more."""

    @property
    def finished(self) -> bool:
        """Whether the Job controller is done with it."""
        return self.complete or self.failed

    @property
    def drained(self) -> bool:
        """Whether no pod of it runs, and none will."""
        return self.finished or (self.suspended and self.parked and not self.active)

    def of_shards(self, retried: Collection[int], total: int) -> JobSnapshot:
        """The same with shards in place of indexes, which stand for some of `total` shards; the others were done before."""
        shards = dict(enumerate(sorted(retried)))
        done = frozenset(range(total)).difference(retried)
        return replace(
            self,
            succeeded_indexes=done.union(shards[index] for index in self.succeeded_indexes),
            failed_indexes=frozenset(shards[index] for index in self.failed_indexes),
        )

    @classmethod
    def from_object(cls, job: Mapping[str, Any]) -> JobSnapshot:
        """Read a `batch/v1` Job that carries our role label."""
        metadata, spec, status = job["metadata"], job["spec"], job.get("status", {})
        conditions = {c["type"]: c for c in status.get("conditions", ()) if c["status"] == "True"}
        failed = conditions.get("Failed", {})
        return cls(
            name=metadata["name"],
            uid=metadata.get("uid", ""),
            role=Role(metadata["labels"][labels.ROLE]),
            suspended=spec.get("suspend", False),
            parallelism=spec.get("parallelism", 1),
            active=status.get("active", 0) + status.get("terminating", 0),
            succeeded_indexes=parse_ranges(status.get("completedIndexes", "")),
            failed_indexes=parse_ranges(status.get("failedIndexes", "")),
            complete="Complete" in conditions,
            failed="Failed" in conditions,
            failure_message=failed.get("message", ""),
            round=int(metadata["labels"].get(labels.ROUND, "0")),
            stop_reason=metadata["labels"].get(labels.STOP_REASON, ""),
            deleting="deletionTimestamp" in metadata,
            parked="Suspended" in conditions,
        )


@dataclass(frozen=True, slots=True)
class PodSnapshot:
    """A pod, as far as it matters whether it starts."""

    role: Role
    phase: str
    """Pending, Running, Succeeded or Failed."""
    obstacle: Reason | None = None
    """What keeps it from starting, as far as is known."""
    message: str = ""

    @classmethod
    def from_object(cls, pod: Mapping[str, Any]) -> PodSnapshot:
        """Read a pod: the scheduler says why there is no node for it, the kubelet why its container does not come up."""
        status, role = pod.get("status", {}), Role(pod["metadata"]["labels"][labels.ROLE])
        phase = status.get("phase", "Pending")
        if phase != "Pending":
            return cls(role, phase)
        for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
            waiting = container.get("state", {}).get("waiting", {})
            obstacle = _OBSTACLES.get(waiting.get("reason", ""))
            if obstacle is not None:
                return cls(role, phase, obstacle, waiting.get("message") or waiting["reason"])
        for condition in status.get("conditions", ()):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return cls(role, phase, Reason.UNSCHEDULABLE, condition.get("message", ""))
        return cls(role, phase)


_OBSTACLES = {
    **dict.fromkeys(
        ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"), Reason.IMAGE_PULL_FAILED
    ),
    **dict.fromkeys(("CreateContainerConfigError", "CreateContainerError"), Reason.CONTAINER_NOT_CREATED),
}
"""What the kubelet calls the reasons that do not go away by themselves."""


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What one pod has said, last or so far."""

    role: Role
    report: Report
    final: bool
    """Whether it is the pod's termination message; otherwise it was read from the metrics port of a running pod."""
    exit_code: int | None = None

    @property
    def ended_well(self) -> bool:
        """Whether it is the last word of a pod that did all it had to. A commit alone is not: the batch's manifest comes after it."""
        return self.final and self.exit_code == 0


class Verdict(NamedTuple):
    """What admission has decided about a batch."""

    admitted: bool
    reason: Reason = Reason.ADMITTED
    message: str = "no limit stands in the way"
    position: int | None = None
    """In the line of its bulkhead, 1 is next; None when it does not stand in it."""
    ahead: int = 0
    estimated_start: datetime | None = None
    pods: int | None = None
    """Pods that it may have; None for as many as it wants."""
    preempts: tuple[str, ...] = ()
    """Batches (`namespace/name`) that have to give way to it first."""


LET_IN = Verdict(admitted=True)
"""Of a batch that may have all its pods."""


@dataclass(frozen=True, slots=True)
class Installation:
    """What the place where Headrace runs has decided for all batches."""

    worker_image: str = "headrace-worker"
    default_output: str | None = None
    """URI below which a batch without `output.uri` gets its folder; None: such a batch is refused."""
    files_root: str = "/var/run/headrace"
    """Where the files of mounted ConfigMaps and claims appear in a worker: `<files_root>/<volume>/`."""
    secrets_root: str | None = "/var/run/headrace-secrets"
    """Where the files of mounted Secrets appear in a worker: `<secrets_root>/<Secret>/<key>`; None where there are no Secrets."""
    metrics_port: int = 9400
    no_containers: str = ""
    """Why images of the user's cannot be run here; empty where they can."""
    max_parallel_branches: int | None = None
    """How many branches of a FanOutJob that run a model may work here at once, whatever it says itself; None: as it says."""
    unsupported_engines: Mapping[str, str] = field(default_factory=dict)
    """Engines that this place cannot run, each with the reason."""
    unsupported_schemes: Mapping[str, str] = field(default_factory=dict)
    """URI schemes that this place cannot read or write, each with the reason."""
    tracing: Tracing | None = None
    """How traces are made; None where there are none."""


@dataclass(frozen=True, slots=True)
class Observed:
    """One consistent look at one batch."""

    batch: InferenceBatch
    now: datetime
    jobs: tuple[JobSnapshot, ...] = ()
    reports: tuple[WorkerReport, ...] = ()
    verdict: Verdict = LET_IN
    installation: Installation = Installation()
    pods: tuple[PodSnapshot, ...] = ()
    """Pods of the Jobs of this round; none where pods always start at once."""
    kueue: KueueView | None = None
    """For a batch with a `queueName` in a cluster; elsewhere a queue means nothing, as a bulkhead does."""
    earlier: InferenceBatch | None = None
    """The batch that `spec.resumeFrom.name` names, if there is one."""

    @property
    def queued(self) -> bool:
        """Whether Kueue has the say over the run Job."""
        return self.kueue is not None

    def job(self, role: Role) -> JobSnapshot | None:
        """The child Job of that role in this round of the batch."""
        mine = (job for job in self.jobs if job.role == role and job.round == self.round and not job.deleting)
        job, status = next(mine, None), self.batch.status
        if job is None or role != Role.RUN or status.retried_shards is None:
            return job
        return job.of_shards(parse_ranges(status.retried_shards), status.shards.total)

    @property
    def round(self) -> int:
        """How often the user has asked for a retry."""
        return self.batch.retries_asked

    @property
    def plan_report(self) -> PlanReport | None:
        """What the preflight has found, once it has ended well; finding bad lines is ending well."""
        reports = (r.report for r in reversed(self.reports) if r.ended_well)
        return next((r for r in reports if isinstance(r, PlanReport)), None)

    @property
    def finalize_report(self) -> FinalizeReport | None:
        """The sums of the whole batch, once `finalize` has ended well."""
        reports = (r.report for r in reversed(self.reports) if r.ended_well)
        return next((r for r in reports if isinstance(r, FinalizeReport)), None)

    @property
    def shard_reports(self) -> tuple[ShardReport, ...]:
        """The newest word of each shard: a commit before anything else, then the highest attempt."""
        newest: dict[int, ShardReport] = {}
        for said in self.reports:
            if isinstance(said.report, ShardReport):
                report = said.report if said.ended_well else said.report.model_copy(update={"committed": False})
                known = newest.get(report.shard)
                if known is None or _rank(report) >= _rank(known):
                    newest[report.shard] = report
        return tuple(newest[shard] for shard in sorted(newest))


def _rank(report: ShardReport) -> tuple[bool, int, int]:
    return (report.committed, report.attempt, report.records.succeeded + report.records.failed)
