"""Names that Headrace puts on objects: the API group, labels, annotations and the field manager."""

from __future__ import annotations

from collections.abc import Mapping

GROUP = "headrace.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
FIELD_MANAGER = "headrace-operator"

INFERENCE_BATCH = f"{GROUP}/inference-batch"
"""On every child: the name of the InferenceBatch that it works for."""
FAN_OUT_JOB = f"{GROUP}/fan-out-job"
"""On every child, also an InferenceBatch: the name of the FanOutJob that it works for."""
SCHEDULED_GENERATION = f"{GROUP}/scheduled-generation"
"""On every child, also a run and the Job of a tick: the name of the ScheduledGeneration that it works for."""
TICK = f"{GROUP}/tick"
"""Annotation on a run: the time of the schedule that it is for."""
DUE = f"{GROUP}/due"
"""Annotation on a run: when it was to begin, which is its tick and this schedule's share of the jitter."""
ALLOWED_WINDOW = f"{GROUP}/allowed-window"
"""Annotation on a run that is to keep to the allowed windows of its schedule: `open`, or `closed` while it is suspended outside of them."""
TICK_MANAGER = f"{GROUP}/schedule"
"""`managedBy` of the Job of a tick: Kubernetes leaves it alone, and Headrace says when it has ended."""
OF_KIND: Mapping[str, str] = {
    "ScheduledGeneration": SCHEDULED_GENERATION,
    "FanOutJob": FAN_OUT_JOB,
    "InferenceBatch": INFERENCE_BATCH,
}
"""The label by which the children of an object of that kind are found; a child has exactly one of them."""
BRANCH = f"{GROUP}/branch"
"""On an InferenceBatch of a FanOutJob: which branch it is."""
ROLE = f"{GROUP}/role"
"""On every child Job: `plan`, `run`, `finalize`, `join`, or `list`; and `serve` on those of a warm pool."""

ROUND = f"{GROUP}/round"
"""On every child: which retry of its owner it belongs to, from 0."""
STOP_REASON = f"{GROUP}/stop-reason"
"""On a `finalize` Job: the reason for which the batch ends."""
RETRY = f"{GROUP}/retry"
"""Annotation on a batch: how often a retry has been asked for; adding one to it asks again."""

TRACEPARENT = f"{GROUP}/traceparent"
"""Annotation on an object that works on records: the W3C trace context that it is worked on in."""

HOLDS = f"{GROUP}/holds"
"""Annotation on a `run` Job and its pods: what each of them counts for in which Bulkhead, should its batch be gone."""

OPENAI_INPUT_FILE = f"{GROUP}/openai-input-file"
"""Annotation on a batch that was made by `POST /v1/batches`: the id of its input file."""
OPENAI_WINDOW = f"{GROUP}/openai-completion-window"
"""Annotation on such a batch: its completion window, as it was asked for."""
OPENAI_METADATA = f"{GROUP}/openai-metadata"
"""Annotation on such a batch: its metadata, a JSON object of texts."""

REQUEST_ROUTE = f"{GROUP}/request-route"
"""Annotation on a batch of requests that have gathered: the route on which they did."""

POOL = f"{GROUP}/pool"
"""On the Job and the pod of a worker of a warm pool: the route that it is for."""
POOL_GATEWAY = f"{GROUP}/pool-gateway"
"""On the same: the namespace of the gateway that tells it of requests."""
POOL_VERSION = f"{GROUP}/pool-version"
"""On the same: what it was told when it was started. One that was told something else serves no more."""
POOL_MANAGER = "headrace-gateway"

SCHEMA_DIGEST = f"{GROUP}/schema-digest"
"""On every CustomResourceDefinition: what its schema is, so that an operator notices an older one."""

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "headrace-operator"

QUEUE_NAME = "kueue.x-k8s.io/queue-name"
"""On the run Job of a batch with a `queueName`: Kueue suspends and releases it, and nobody else does."""
MIN_PARALLELISM = "kueue.x-k8s.io/job-min-parallelism"
"""Annotation on that Job: with how many pods Kueue may let it start."""
DEACTIVATED = f"{GROUP}/deactivated"
"""Annotation on a Workload of Kueue: it is inactive because its batch is to rest, so it is we who make it active again."""

CONTAINER = "worker"
"""Name of the one container in every worker pod."""


def retries_asked(annotations: Mapping[str, str]) -> int:
    """How often a retry has been asked for; anything that is not a number is none."""
    asked = annotations.get(RETRY, "0")
    return int(asked) if asked.isascii() and asked.isdecimal() and len(asked) < 9 else 0


def recommended(instance: str, component: str) -> dict[str, str]:
    """Labels that every Kubernetes tool knows, for a child of `instance`."""
    return {
        "app.kubernetes.io/name": "headrace-worker",
        "app.kubernetes.io/instance": instance,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": "headrace",
        MANAGED_BY: MANAGER,
    }
