"""What `reconcile` looks at: one frozen snapshot of a FanOutJob, of its branches and of its own Jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from headrace.api.common import Resources
from headrace.api.engines import Engine, EngineName
from headrace.api.fanoutjob import FanOutJob
from headrace.api.inferencebatch import InferenceBatch, InferenceBatchSpec
from headrace.api.model import Model
from headrace.api.worker import JoinReport, Role, SelectReport
from headrace.core.observed import Installation, JobSnapshot, Observed, PodSnapshot, WorkerReport
from headrace.core.volumes import output_uri


@dataclass(frozen=True, slots=True)
class FanOutObserved:
    """One consistent look at one FanOutJob."""

    fan_out: FanOutJob
    now: datetime
    children: Mapping[str, InferenceBatch] = field(default_factory=dict)
    """The InferenceBatches of its branches, by the name of the branch."""
    jobs: tuple[JobSnapshot, ...] = ()
    """Its own: `plan`, `select` and `join`."""
    reports: tuple[WorkerReport, ...] = ()
    installation: Installation = field(default_factory=Installation)
    pods: tuple[PodSnapshot, ...] = ()

    @property
    def own_work(self) -> Observed:
        """What it does itself, before and after its branches, seen as the work of a batch: read an input, write an output."""
        return Observed(
            batch=as_batch(self.fan_out, self.installation),
            now=self.now,
            jobs=self.jobs,
            reports=self.reports,
            installation=self.installation,
            pods=self.pods,
        )

    def job(self, role: Role) -> JobSnapshot | None:
        """The Job of that role in this round."""
        mine = (j for j in self.jobs if j.role == role and j.round == self.fan_out.retries_asked and not j.deleting)
        return next(mine, None)

    def select_report(self, stage: int) -> SelectReport | None:
        """How many records that stage is given, once they have been selected."""
        reports = (r.report for r in reversed(self.reports) if r.ended_well)
        return next((r for r in reports if isinstance(r, SelectReport) and r.stage == stage), None)

    @property
    def join_report(self) -> JoinReport | None:
        """The sums of the joined output, once the join has ended well."""
        reports = (r.report for r in reversed(self.reports) if r.ended_well)
        return next((r for r in reports if isinstance(r, JoinReport)), None)


def as_batch(fan_out: FanOutJob, place: Installation) -> InferenceBatch:
    """A batch with the input and output of a FanOutJob, which its own workers take for theirs; its resources are those of the join."""
    spec, model = fan_out.spec, fan_out.spec.branches[0].model
    plain = InferenceBatch(
        metadata=fan_out.metadata,
        spec=InferenceBatchSpec(
            model=Model(name=model.name, task=model.task),
            engine=Engine(name=EngineName.MOCK),
            input=fan_out.records_input,
            output=spec.output,
            storage=spec.storage,
            service_account_name=spec.service_account_name,
            resources=spec.aggregation.resources or Resources(),
            completion_deadline_seconds=spec.completion_deadline_seconds,
            suspend=spec.suspend,
            cancel=spec.cancel,
        ),
    )
    uri = output_uri(plain, place)
    return plain.model_copy(
        update={"spec": plain.spec.model_copy(update={"output": spec.output.model_copy(update={"uri": uri})})}
    )
