"""The children of an InferenceBatch, built from scratch with only the fields that we own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.common import Resources
from headrace.api.engines import EngineName
from headrace.api.fanoutjob import FanOutJob
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.meta import Named
from headrace.api.model import Model
from headrace.api.ranges import parse_ranges
from headrace.api.scorers import ModelUse
from headrace.api.worker import Env, ExitCode, FanOutConfig, Role, WorkerConfig
from headrace.core import scratch
from headrace.core.admission.orphans import mark
from headrace.core.endpointaccess import endpoint_access
from headrace.core.observed import Installation
from headrace.core.program import COLLECT_CONTAINER, EXCHANGE, SMALL, window_variables, with_program
from headrace.core.stopping import Stop
from headrace.core.tracing.context import worker_variables
from headrace.core.volumes import Volumes
from headrace.core.workerconfig import worker_config

WORKER_GROUP = 65532
"""The group that the worker image runs as, as its Dockerfile says."""

_WITH_THE_MODEL = (Role.RUN, Role.SERVE)
"""Roles that run the engine of the batch."""


@dataclass(frozen=True, slots=True)
class FanOutWork:
    """Work that a FanOutJob does itself: its Jobs belong to it, and their workers are told what they are to join."""

    owner: FanOutJob
    config: FanOutConfig


def plan_job(batch: InferenceBatch, place: Installation) -> JsonObject:
    """The preflight: one CPU pod that reads the whole input."""
    return single_job(batch, place, Role.PLAN, backoff_limit=3)


def single_job(
    batch: InferenceBatch, place: Installation, role: Role, backoff_limit: int, work: FanOutWork | None = None
) -> JsonObject:
    """A Job of one CPU pod."""
    counts = {"completions": 1, "parallelism": 1, "backoffLimit": backoff_limit}
    return _job(batch, place, role, counts, work=work)


def finalize_job(batch: InferenceBatch, place: Installation, stop: Stop | None) -> JsonObject:
    """The close: one CPU pod that gives every record without a result an error line."""
    counts = {"completions": 1, "parallelism": 1, "backoffLimit": 6}
    job = _job(batch, place, Role.FINALIZE, counts, stop)
    if stop is not None:
        job["metadata"]["labels"][labels.STOP_REASON] = str(stop.reason)
    return job


def run_job(batch: InferenceBatch, place: Installation, *, suspend: bool, pods: int | None = None) -> JsonObject:
    """The work: one pod a shard, so many of them at once; by default as many as the spec says."""
    counts = {
        "completionMode": "Indexed",
        "completions": _shards_to_do(batch),
        "parallelism": batch.spec.parallelism if pods is None else pods,
        "backoffLimitPerIndex": batch.spec.failure_policy.backoff_limit_per_index,
        "suspend": suspend,
    }
    return _job(batch, place, Role.RUN, counts)


def _shards_to_do(batch: InferenceBatch) -> int:
    """Shards that get a pod in this round."""
    status = batch.status
    return status.shards.total if status.retried_shards is None else len(parse_ranges(status.retried_shards))


def queued_run_job(batch: InferenceBatch, place: Installation, pods: int) -> JsonObject:
    """The work, as Kueue takes it up: suspended until Kueue releases it, with so many pods or, where the batch says so, fewer."""
    job = run_job(batch, place, pods=pods, suspend=True)
    job["metadata"]["labels"][labels.QUEUE_NAME] = batch.spec.queue_name
    least = batch.spec.min_parallelism
    if least is not None and least < min(pods, _shards_to_do(batch)):
        job["metadata"]["annotations"] = {labels.MIN_PARALLELISM: str(least)}
    return job


def child_name(batch: InferenceBatch, role: Role) -> str:
    """`reviews-run`, and `reviews-run-r2` in the second retry."""
    suffix = f"-r{batch.retries_asked}" if batch.retries_asked else ""
    return f"{batch.metadata.name}-{role}{suffix}"


def owned(parent: Named, name: str, component: str) -> JsonObject:
    """Metadata of a child: deleted with its parent, found by its labels."""
    return {
        "name": name,
        "namespace": parent.metadata.namespace,
        "labels": {
            **labels.recommended(parent.metadata.name, component),
            _label_of(parent): parent.metadata.name,
        },
        "ownerReferences": [
            {
                "apiVersion": labels.API_VERSION,
                "kind": parent.kind,
                "name": parent.metadata.name,
                "uid": parent.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def _label_of(parent: Named) -> str:
    return labels.OF_KIND[parent.kind]


def _job(
    batch: InferenceBatch,
    place: Installation,
    role: Role,
    counts: JsonObject,
    stop: Stop | None = None,
    work: FanOutWork | None = None,
) -> JsonObject:
    parent = work.owner if work is not None else batch
    metadata = owned(parent, child_name(batch, role), role)
    metadata["labels"] |= {labels.ROLE: str(role), labels.ROUND: str(batch.retries_asked)}
    pod_labels = {key: metadata["labels"][key] for key in (_label_of(parent), labels.ROLE, labels.ROUND)}
    image = work.config.aggregation.image if work is not None and role == Role.JOIN else None
    volumes = Volumes.of(batch, place, work.config.aggregation if work is not None else None)
    config = worker_config(batch, place, volumes, stop.error_code if stop else None)
    if work is not None:
        told = {"aggregation": volumes.aggregation, "exchange": EXCHANGE if image is not None else None}
        config = config.model_copy(update={"fan_out": work.config.model_copy(update=told)})
    pod = _pod(batch, place, role, config, volumes)
    pod["containers"][0]["env"] += worker_variables(parent, batch.retries_asked, place.tracing)
    counted = role == Role.RUN and batch.spec.queue_name is None  # Kueue counts what it admits, and no Bulkhead does
    annotations = {"annotations": {labels.HOLDS: mark(batch)}} if counted else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata | annotations,
        "spec": {
            **counts,
            "podReplacementPolicy": "Failed",
            **_failure_policy(role, collects=image is not None),
            "template": {
                "metadata": {"labels": pod_labels | labels.recommended(batch.metadata.name, role), **annotations},
                "spec": pod if image is None else with_program(pod, image, batch.spec.input.window),
            },
        },
    }


def _failure_policy(role: Role, *, collects: bool) -> JsonObject:
    """None for a worker of a warm pool: whoever has started it says whether another follows, however it has ended."""
    return {} if role == Role.SERVE else {"podFailurePolicy": {"rules": _failure_rules(role, collects=collects)}}


def _failure_rules(role: Role, *, collects: bool) -> list[JsonObject]:
    """What the worker's exit codes mean to the Job controller; a node that goes away costs nobody a retry."""
    indexed = role == Role.RUN

    def on_exit(code: ExitCode, action: str, container: str = labels.CONTAINER) -> JsonObject:
        match = {"containerName": container, "operator": "In", "values": [int(code)]}
        return {"action": action, "onExitCodes": match}

    first = [
        on_exit(ExitCode.DRAINED, "Ignore", COLLECT_CONTAINER),
        on_exit(ExitCode.JOB_FAILED, "FailJob", COLLECT_CONTAINER),
    ]
    return [
        *(first if collects else ()),
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        on_exit(ExitCode.DRAINED, "Ignore"),
        on_exit(ExitCode.SHARD_FAILED, "FailIndex" if indexed else "FailJob"),
        on_exit(ExitCode.JOB_FAILED, "FailJob"),
    ]


def _pod(batch: InferenceBatch, place: Installation, role: Role, config: WorkerConfig, volumes: Volumes) -> JsonObject:
    uses = _own_uses(role, config)
    own = (batch.spec.engine,) if role in _WITH_THE_MODEL else ()
    access = endpoint_access((*own, *(use.engine for use in uses)), place)
    shares = role == Role.RUN and batch.spec.engine.name == EngineName.VLLM
    container: JsonObject = {
        "name": labels.CONTAINER,
        "image": place.worker_image,
        "command": ["headrace_worker"],
        "args": [str(role)],
        "env": [
            {"name": Env.CONFIG.value, "value": config.model_dump_json(by_alias=True, exclude_none=True)},
            {"name": Env.METRICS_PORT.value, "value": str(place.metrics_port)},
            scratch.HOME,
            *window_variables(batch.spec.input.window),
            *_secrets((batch.spec.model, *(use.model for use in uses))),
            *access.variables,
        ],
        **_storage(batch),
        "ports": [{"name": "metrics", "containerPort": place.metrics_port}],
        "resources": _resources(batch, role, config),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [*volumes.mounts, *access.mounts, scratch.MOUNT, *([scratch.SHARED_MOUNT] if shares else ())],
    }
    return {
        "restartPolicy": "Never",
        **_service_account(batch),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": batch.spec.termination_grace_period_seconds,
        "securityContext": _security(volumes),
        "containers": [container],
        "volumes": [*volumes.volumes, *access.volumes, scratch.VOLUME, *([scratch.SHARED_VOLUME] if shares else ())],
        **(_spread(batch) if role == Role.RUN else {}),
    }


def _security(volumes: Volumes) -> JsonObject:
    """What PodSecurity `restricted` asks for. A new claim is root's: its group lets the worker in, without a walk over a full one."""
    restricted: JsonObject = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if not any("persistentVolumeClaim" in volume for volume in volumes.volumes):
        return restricted
    return {**restricted, "fsGroup": WORKER_GROUP, "fsGroupChangePolicy": "OnRootMismatch"}


def _own_uses(role: Role, config: WorkerConfig) -> tuple[ModelUse, ...]:
    """The models that a worker runs besides that of the batch: those of a join, and that of an evaluation."""
    if role == Role.FINALIZE and config.evaluation is not None and config.evaluation.embedding is not None:
        return (config.evaluation.embedding,)
    return config.fan_out.aggregation.uses if config.fan_out is not None else ()


def _secrets(models: Iterable[Model]) -> list[JsonObject]:
    """Secrets reach a worker by reference, never by value."""
    hubs = (model.source.hugging_face for model in models if model.source is not None)
    token = next((hub.token_secret_ref for hub in hubs if hub is not None and hub.token_secret_ref is not None), None)
    return [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": token.to_object()}}] if token is not None else []


def _storage(batch: InferenceBatch) -> JsonObject:
    """What the object stores ask for, as environment variables; those that the operator sets itself win."""
    storage = batch.spec.storage
    return {} if storage is None else {"envFrom": [{"secretRef": storage.secret_ref.to_object()}]}


def _service_account(batch: InferenceBatch) -> JsonObject:
    name = batch.spec.service_account_name
    return {} if name is None else {"serviceAccountName": name}


def _resources(batch: InferenceBatch, role: Role, config: WorkerConfig) -> JsonObject:
    """Always with requests and limits; who says only one of them means both."""
    if role == Role.FINALIZE and _own_uses(role, config):
        return {"requests": {"cpu": "1", "memory": "4Gi"}, "limits": {"memory": "16Gi"}}
    asked = batch.spec.resources
    joins = role in (Role.JOIN, Role.SELECT) and (_needs_more(config) or asked != Resources())
    if role not in _WITH_THE_MODEL and not joins:
        return dict(SMALL)
    wanted, most = asked.requests.to_object(), asked.limits.to_object()
    requests = {"cpu": "1", "memory": "4Gi", **most, **wanted}
    limits = {"memory": wanted.get("memory", "16Gi"), **most}
    if batch.spec.gpus:
        limits[asked.gpu_resource_name] = str(batch.spec.gpus)
    return {"requests": requests, "limits": limits}


def _needs_more(config: WorkerConfig) -> bool:
    """Whether a worker of a FanOutJob runs models, or makes room for a program of the user's."""
    return config.fan_out is not None and bool(config.fan_out.aggregation.uses or config.fan_out.exchange)


def _spread(batch: InferenceBatch) -> JsonObject:
    """One node's death should not take all shards with it, if there are other nodes."""
    same_batch = {labels.INFERENCE_BATCH: batch.metadata.name, labels.ROLE: str(Role.RUN)}
    return {
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": same_batch},
            }
        ]
    }
