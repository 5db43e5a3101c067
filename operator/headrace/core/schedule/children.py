"""The children of a ScheduledGeneration: the native CronJob that ticks, and a run for each tick."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.fanoutjob import FanOutJob
from headrace.api.inferencebatch import InferenceBatch, InferenceBatchSpec
from headrace.api.input import Input, Output
from headrace.api.kinds import OurObject
from headrace.api.meta import ObjectMeta
from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.api.window import DataWindow, fill_uri
from headrace.core.children import owned
from headrace.core.schedule import offpeak
from headrace.core.schedule.catchup import starting_deadline_seconds
from headrace.core.schedule.cron import Cron
from headrace.core.schedule.retries import own_retries
from headrace.core.schedule.trigger import name_of
from headrace.core.schedule.waiting import Waiting
from headrace.core.schedule.window import window_of
from headrace.core.tracing.context import handed_on, tick_context
from headrace.core.tracing.settings import Tracing


def cron_job(schedule: ScheduledGeneration, cron: Cron, *, suspend: bool) -> JsonObject:
    """The CronJob. Its Jobs are left to us: Kubernetes makes no pods for them, so that their template is never run."""
    spec, metadata = schedule.spec, owned(schedule, schedule.metadata.name, "schedule")
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": metadata,
        "spec": {
            "schedule": cron.text,
            "timeZone": spec.time_zone,
            "concurrencyPolicy": str(spec.concurrency_policy),
            **_deadline(starting_deadline_seconds(schedule)),
            "suspend": suspend,
            "successfulJobsHistoryLimit": spec.successful_jobs_history_limit,
            "failedJobsHistoryLimit": spec.failed_jobs_history_limit,
            "jobTemplate": {
                "metadata": {"labels": metadata["labels"]},
                "spec": {"managedBy": labels.TICK_MANAGER, "suspend": False, "template": _no_pod()},
            },
        },
    }


def is_ours_to_end(cron: JsonObject) -> bool:
    """Whether the API server has kept `managedBy`. One that does not know it would have pods started."""
    template: JsonObject = cron["spec"]["jobTemplate"]["spec"]
    return template.get("managedBy") == labels.TICK_MANAGER


def paused(cron: JsonObject) -> JsonObject:
    """The CronJob as it is, but with no more ticks."""
    kept = {"name": cron["metadata"]["name"], "namespace": cron["metadata"]["namespace"]}
    spec = {**cron["spec"], "suspend": True}
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": kept, "spec": spec}


def run_of(
    schedule: ScheduledGeneration, begun: Waiting, carried_from: str | None = None, tracing: Tracing | None = None
) -> JsonObject:
    """The run of a tick, called as the Job of the tick is; `carried_from`: the output of the run whose undone records it takes up."""
    run = run_object(schedule, begun.tick, begun.name)
    if carried_from is not None:
        input_ = run.spec.input.model_copy(update={"carried_from": carried_from})
        run = run.model_copy(update={"spec": run.spec.model_copy(update={"input": input_})})
    metadata = owned(schedule, run.metadata.name, "run")
    keeps_to_windows = {} if begun.asked_for else offpeak.mark(schedule)
    context = handed_on(tick_context(schedule, begun.tick, tracing) if tracing is not None else None)
    times = {labels.TICK: _rfc3339(begun.tick), labels.DUE: _rfc3339(begun.due)}
    metadata["annotations"] = {**times, **keeps_to_windows, **context}
    return _manifest(run, metadata)


def run_by_hand(schedule: ScheduledGeneration, tick: datetime) -> OurObject:
    """The run of a tick that nobody has made a Job for. It is whoever's that submits it, and called as any run of this tick."""
    run = run_object(schedule, tick)
    metadata = {
        "name": run.metadata.name,
        "namespace": run.metadata.namespace,
        "annotations": {labels.TICK: _rfc3339(tick)},
    }
    return type(run).parse(_manifest(run, metadata))


def as_it_is(run: OurObject, *, cancel: bool = False, again: bool = False, window: str | None = None) -> JsonObject:
    """A run that stays as it is, is cancelled, or is tried again; `window`: its allowed window has just opened or closed."""
    metadata: dict[str, Any] = {"name": run.metadata.name, "namespace": run.metadata.namespace, "annotations": {}}
    changes = {"cancel": True} if cancel else {}
    if again:
        metadata["labels"] = {labels.ROUND: str(own_retries(run) + 1)}
        metadata["annotations"] |= {labels.RETRY: str(run.retries_asked + 1)}
    if window is not None:
        metadata["annotations"] |= {labels.ALLOWED_WINDOW: window}
        changes["suspend"] = window == offpeak.CLOSED
    return _manifest(run.model_copy(update={"spec": run.spec.model_copy(update=changes)}), metadata)


def run_object(schedule: ScheduledGeneration, tick: datetime, name: str | None = None) -> OurObject:
    """The run of a tick as an object; of a trigger, the one whose window ends then. Each has a window and an output of its own.

    Raises `BadUriTemplate`.
    """
    name = name or name_of(schedule, tick)
    metadata = ObjectMeta(name=name, namespace=schedule.metadata.namespace)
    (work,) = schedule.spec.template.work
    own = {"input": _own_input(work.input, window_of(schedule, tick)), "output": _own_output(work.output, name)}
    if isinstance(work, InferenceBatchSpec):
        return InferenceBatch(metadata=metadata, spec=work.model_copy(update=own))
    return FanOutJob(metadata=metadata, spec=work.model_copy(update=own))


def _own_input(template: Input, window: DataWindow) -> Input:
    uri = fill_uri(template.uri, window) if template.uri is not None else None
    return template.model_copy(update={"uri": uri, "window": window})


def _deadline(seconds: int | None) -> JsonObject:
    return {} if seconds is None else {"startingDeadlineSeconds": seconds}


def _own_output(below: Output, name: str) -> Output:
    return below if below.uri is None else below.model_copy(update={"uri": f"{below.uri.rstrip('/')}/{name}/"})


def _manifest(run: OurObject, metadata: dict[str, Any]) -> JsonObject:
    head = {"apiVersion": labels.API_VERSION, "kind": run.kind, "metadata": metadata}
    return {**head, "spec": run.spec.to_object()}


def _no_pod() -> JsonObject:
    """What a Job must have and nobody runs; restricted, so that no namespace warns of it whoever asks for a run by hand."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    image = "headrace.dev/no-pod-is-started-for-a-tick"
    return {
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "none", "image": image, "securityContext": security}],
        }
    }


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
