"""`ScheduledGeneration`: a batch or a fan-out at the times of a cron expression, once at a moment, or whenever there is new input.

The ticks are those of a native CronJob: which ones come, whether one is passed over, and how many ended ones are kept is for it to say.
A tick becomes one run, an InferenceBatch or a FanOutJob, later than the tick by this schedule's share of the jitter.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from headrace.api import inferencebatch
from headrace.api.base import ApiModel, Rule, ZonedTime
from headrace.api.branches import Branch
from headrace.api.common import exactly_one, short_name
from headrace.api.fanoutjob import FanOutJobSpec
from headrace.api.inferencebatch import InferenceBatchSpec
from headrace.api.meta import ObjectMeta
from headrace.api.schedulepolicies import CatchUp, CatchUpPolicy, ConcurrencyPolicy, FailureBackoff, OnDrift, Window
from headrace.api.schedulestatus import ScheduledGenerationStatus
from headrace.api.starting import AllowedWindow, Dependency, DependencyKind, OnUnmet, OnWindowEnd, TimeZone
from headrace.api.trigger import Trigger
from headrace.api.window import Objects

TICK_DIGITS = 9
"""How many characters a run has after the name of its schedule: a dash, and the minutes of its tick since 1970."""
MAX_NAME_LENGTH = 40
"""A run is named after its schedule, and its pods after the run."""
_FIRST_MOMENT, _LAST_MOMENT = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


class Template(ApiModel):
    """What is run, with a window and an output of its own each time.

    In `input.uri` `{{ window.start }}` and `{{ window.end }}` are filled in, also in parts:
    `s3://in/{{ window.start.strftime('%Y/%m/%d/%H') }}/*.jsonl`. An `output.uri` is a folder below which each run has one.
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one("inference_batch", "fan_out_job"),
        Rule(
            cel="!(has(self.inferenceBatch) && self.inferenceBatch.cancel) && !(has(self.fanOutJob) && self.fanOutJob.cancel)",
            message="cancel may not be set: every run would end at once",
            check=lambda it: not any(work.cancel for work in it.work),
        ),
        Rule(
            cel="!(has(self.inferenceBatch) && has(self.inferenceBatch.input.window)) && "
            "!(has(self.fanOutJob) && has(self.fanOutJob.input.window))",
            message="input.window may not be set: each run has its own, which spec.window speaks of",
            check=lambda it: all(work.input.window is None for work in it.work),
        ),
        Rule(
            cel="!(has(self.inferenceBatch) && has(self.inferenceBatch.input.carriedFrom)) && "
            "!(has(self.fanOutJob) && has(self.fanOutJob.input.carriedFrom))",
            message="input.carriedFrom may not be set: each run has its own, which spec.carryFailedRecords speaks of",
            check=lambda it: all(work.input.carried_from is None for work in it.work),
        ),
    )

    inference_batch: InferenceBatchSpec | None = None
    """The spec of an InferenceBatch."""
    fan_out_job: FanOutJobSpec | None = None
    """The spec of a FanOutJob."""

    @property
    def work(self) -> tuple[InferenceBatchSpec | FanOutJobSpec, ...]:
        """What is set of these."""
        return tuple(work for work in (self.inference_batch, self.fan_out_job) if work is not None)


def _can_be_carried(work: InferenceBatchSpec | FanOutJobSpec) -> bool:
    split = work.split if isinstance(work, FanOutJobSpec) else work.input.split
    return work.input.uri is not None and split is None


def _knows_no_ticks(spec: ScheduledGenerationSpec) -> bool:
    late = spec.jitter_seconds or spec.starting_deadline_seconds is not None
    return not late and spec.window == Window() and spec.catch_up == CatchUp()


def _is_compared(work: InferenceBatchSpec | FanOutJobSpec) -> bool:
    parts = work.branches if isinstance(work, FanOutJobSpec) else (work,)
    return any(part.evaluation is not None and part.evaluation.reference is not None for part in parts)


class ScheduledGenerationSpec(ApiModel):
    """What is wanted. All of it may change; runs that have begun stay as they are."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one("schedule", "run_at", "trigger"),
        Rule(
            cel="!has(self.runAt) || "
            "(self.runAt >= timestamp('2000-01-01T00:00:00Z') && self.runAt < timestamp('2100-01-01T00:00:00Z'))",
            message="runAt must be in the years 2000 to 2099",
            check=lambda it: it.run_at is None or _FIRST_MOMENT <= it.run_at < _LAST_MOMENT,
            field="runAt",
        ),
        Rule(
            cel="self.catchUp.policy != 'All' || self.concurrencyPolicy == 'Allow'",
            message="All needs the concurrencyPolicy Allow: else what was passed over could not be told from what was missed",
            check=lambda it: (
                it.catch_up.policy != CatchUpPolicy.ALL or it.concurrency_policy == ConcurrencyPolicy.ALLOW
            ),
            field="catchUp.policy",
        ),
        Rule(
            cel="!self.carryFailedRecords || self.concurrencyPolicy != 'Allow'",
            message="carryFailedRecords needs the concurrencyPolicy Forbid or Replace: a run takes up what the one before it has left",
            check=lambda it: not it.carry_failed_records or it.concurrency_policy != ConcurrencyPolicy.ALLOW,
            field="carryFailedRecords",
        ),
        Rule(
            cel="!self.carryFailedRecords || ("
            "(!has(self.template.inferenceBatch) || (has(self.template.inferenceBatch.input.uri) && "
            "!has(self.template.inferenceBatch.input.split))) && "
            "(!has(self.template.fanOutJob) || (has(self.template.fanOutJob.input.uri) && !has(self.template.fanOutJob.split))))",
            message="carryFailedRecords is about whole records at a URI: input.uri must be set in the template, and split must not",
            check=lambda it: not it.carry_failed_records or all(map(_can_be_carried, it.template.work)),
            field="carryFailedRecords",
        ),
        Rule(
            cel="self.onWindowEnd == 'Continue' || self.allowedWindows.size() > 0",
            message="onWindowEnd may be Suspend only with allowedWindows: else none ever ends",
            check=lambda it: it.on_window_end == OnWindowEnd.CONTINUE or bool(it.allowed_windows),
            field="onWindowEnd",
        ),
        Rule(
            cel="self.onDrift == 'Warn' || "
            "(has(self.template.inferenceBatch) && has(self.template.inferenceBatch.evaluation) && "
            "has(self.template.inferenceBatch.evaluation.reference)) || "
            "(has(self.template.fanOutJob) && "
            "self.template.fanOutJob.branches.exists(b, has(b.evaluation) && has(b.evaluation.reference)))",
            message="onDrift may be Pause only where the template has an evaluation with a reference: else nothing ever drifts",
            check=lambda it: it.on_drift == OnDrift.WARN or any(map(_is_compared, it.template.work)),
            field="onDrift",
        ),
        Rule(
            cel="self.onUnmet == 'Wait' || self.dependsOn.size() > 0",
            message="onUnmet may be Skip only with dependsOn: else nothing is ever unmet",
            check=lambda it: it.on_unmet == OnUnmet.WAIT or bool(it.depends_on),
            field="onUnmet",
        ),
        Rule(
            cel="!has(self.trigger) || (self.jitterSeconds == 0 && !has(self.startingDeadlineSeconds) && "
            "!has(self.window.lengthSeconds) && self.window.delaySeconds == 0 && "
            "self.catchUp.policy == 'Latest' && self.catchUp.max == 24)",
            message="jitterSeconds, startingDeadlineSeconds, window and catchUp are about ticks: with a trigger, which has none, they may "
            "not be set",
            check=lambda it: it.trigger is None or _knows_no_ticks(it),
            field="trigger",
        ),
        Rule(
            cel="!has(self.trigger) || (self.concurrencyPolicy != 'Replace' && self.onUnmet != 'Skip')",
            message="with a trigger concurrencyPolicy may not be Replace, nor onUnmet Skip: objects of what is given up would have no run",
            check=lambda it: (
                it.trigger is None
                or (it.concurrency_policy != ConcurrencyPolicy.REPLACE and it.on_unmet != OnUnmet.SKIP)
            ),
            field="trigger",
        ),
        Rule(
            cel="!has(self.trigger) || ("
            "(!has(self.template.inferenceBatch) || self.template.inferenceBatch.input.objects == 'ModifiedInWindow') && "
            "(!has(self.template.fanOutJob) || self.template.fanOutJob.input.objects == 'ModifiedInWindow'))",
            message="a trigger needs input.objects: ModifiedInWindow in the template, or else each run would read all objects again",
            check=lambda it: (
                it.trigger is None or all(work.input.objects == Objects.MODIFIED_IN_WINDOW for work in it.template.work)
            ),
            field="trigger",
        ),
    )

    schedule: (
        Annotated[
            str, Field(min_length=1, max_length=256, pattern=r"^(@[a-z]+|[0-9A-Za-z*/,()-]+( +[0-9A-Za-z*/,()-]+){4})$")
        ]
        | None
    ) = None
    """Five fields of cron, or one of @hourly, @daily, @weekly, @monthly, @yearly. `H` is a value that follows from namespace and name, so
    that schedules of `H * * * *` are spread over the hour."""
    run_at: ZonedTime | None = None
    """In place of a schedule: the moment of the only run. One that has passed is run at once, unless startingDeadlineSeconds is over.
    Another moment that is set later brings another run."""
    trigger: Trigger | None = None
    """In place of both: runs begin when there is new input."""
    time_zone: TimeZone = "Etc/UTC"
    """A name of the time zone database, such as Europe/Berlin."""
    jitter_seconds: Annotated[int, Field(ge=0, le=86_400)] = 0
    """Each run begins later by a part of this, which follows from namespace and name and never changes: schedules of one minute do not
    start as one."""
    concurrency_policy: ConcurrencyPolicy = ConcurrencyPolicy.ALLOW
    """Allow: beside the run before. Forbid: the tick is passed over. Replace: the run before is cancelled, and what it has done is kept."""
    starting_deadline_seconds: Annotated[int, Field(ge=10, le=31_536_000)] | None = None
    """A tick that the CronJob cannot begin within this time is missed, and so is a runAt. One that waits for what it depends on is given up
    after it."""
    allowed_windows: Annotated[tuple[AllowedWindow, ...], Field(max_length=16)] = ()
    """When runs may begin, such as at night; by default at any time. A tick that comes at another time waits until the next one opens."""
    on_window_end: OnWindowEnd = OnWindowEnd.CONTINUE
    """What becomes of a run that is not over then. Continue: it goes on. Suspend: it puts its work away, gives its GPUs back, and goes on
    when a window opens."""
    depends_on: Annotated[tuple[Dependency, ...], Field(max_length=16)] = ()
    """What must be complete before a run may begin."""
    on_unmet: OnUnmet = OnUnmet.WAIT
    """What becomes of a tick when that is not so. Wait: it waits, but not longer than startingDeadlineSeconds. Skip: it is passed over."""
    suspend: bool = False
    """Let no more ticks come; the runs of those that have come go on."""
    successful_jobs_history_limit: Annotated[int, Field(ge=0, le=100)] = 3
    """How many runs that are complete are kept; their output stays in any case."""
    failed_jobs_history_limit: Annotated[int, Field(ge=0, le=100)] = 3
    """How many runs that have failed are kept; what they have put out stays in any case."""
    failure_backoff: FailureBackoff | None = None
    """When a run that has failed is tried again, on what is not done; without it, it is not. Its tick is over when its last try is."""
    carry_failed_records: bool = False
    """Have each run take up the records that the run before it has left without a result. Runs follow each other then: one begins when
    the one before it is over."""
    suspend_after_failures: Annotated[int, Field(ge=1, le=100)] | None = None
    """Let no more ticks come when so many runs in a row have failed, until a run is complete or the spec is changed."""
    on_drift: OnDrift = OnDrift.WARN
    """What becomes of the schedule when a run has drifted from the reference of its evaluation. Warn: the condition DataDrift of the run
    says so. Pause: no more ticks come, either, until a run is complete that has not drifted, or the spec is changed."""
    max_drift_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """How late the first record of a run may be begun, jitter not counted, before the condition DriftExceeded holds; without it, it
    never does."""
    window: Window = Field(default_factory=Window)
    catch_up: CatchUp = Field(default_factory=CatchUp)
    template: Template
    """What is run."""


class ScheduledGeneration(ApiModel):
    """A batch or a fan-out at the times of a cron expression, once at a moment, or whenever there is new input."""

    rules: ClassVar[tuple[Rule, ...]] = (
        short_name(MAX_NAME_LENGTH, "runs"),
        Rule(
            cel="!has(self.spec.template.fanOutJob) || self.spec.template.fanOutJob.branches.all(b, "
            f"self.metadata.name.size() + b.name.size() < {inferencebatch.MAX_NAME_LENGTH - TICK_DIGITS})",
            message="metadata.name and the name of a branch must have less than "
            f"{inferencebatch.MAX_NAME_LENGTH - TICK_DIGITS} characters together: pods are named after both and the tick",
            check=lambda it: all(_fits(it.metadata.name, branch.name) for branch in it.branches),
            field="spec.template",
        ),
        Rule(
            cel="!self.spec.dependsOn.exists(d, d.kind == 'ScheduledGeneration' && d.name == self.metadata.name)",
            message="a schedule must not depend on itself: its first run would wait for ever",
            check=lambda it: it.metadata.name not in it.upstream,
            field="spec.dependsOn",
        ),
    )

    api_version: Literal["headrace.dev/v1alpha1"] = "headrace.dev/v1alpha1"
    kind: Literal["ScheduledGeneration"] = "ScheduledGeneration"
    metadata: ObjectMeta
    spec: ScheduledGenerationSpec
    status: ScheduledGenerationStatus = Field(default_factory=ScheduledGenerationStatus)

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def upstream(self) -> tuple[str, ...]:
        """Names of the schedules that it depends on."""
        return tuple(one.name for one in self.spec.depends_on if one.kind == DependencyKind.SCHEDULED_GENERATION)

    @property
    def branches(self) -> tuple[Branch, ...]:
        """Those of its runs; none where a run is one batch."""
        fan_out = self.spec.template.fan_out_job
        return fan_out.branches if fan_out is not None else ()


def _fits(name: str, branch: str) -> bool:
    return len(name) + len(branch) < inferencebatch.MAX_NAME_LENGTH - TICK_DIGITS
