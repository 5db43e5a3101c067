"""The values of the chart, from which `values.schema.json` is made. Helm refuses what does not fit, and names the value."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from headrace.api.base import ApiModel, FreeObject, JsonObject, Name
from headrace.api.bulkhead import BulkheadSpec

FreeObjects = tuple[FreeObject, ...]
Labels = dict[str, str]
Port = Annotated[int, Field(ge=1, le=65535)]
_RATIO = r"0(\.[0-9]+)?|1(\.0+)?"
PUBLIC_V4 = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
)
PUBLIC_V6 = ("::1/128", "64:ff9b::/96", "2002::/16", "fc00::/7", "fe80::/10")


class ImageName(ApiModel):
    """A container image."""

    repository: Annotated[str, Field(min_length=1)]
    """Name of the image with its registry, without a tag."""
    tag: str = ""
    """By default the chart's appVersion."""
    digest: Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$")] = ""
    """Pins the image; the tag does not count then."""


class OperatorImage(ImageName):
    """The operator's image."""

    repository: Annotated[str, Field(min_length=1)] = "headrace-operator"
    """Name of the image with its registry, without a tag."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the kubelet pulls it."""


class Worker(ApiModel):
    """The worker pods."""

    image: ImageName = ImageName(repository="headrace-worker")
    """Their image."""


class DefaultBulkhead(ApiModel):
    """The Bulkhead of batches that name none. Made once, and then left to whoever runs the cluster."""

    create: bool = True
    """Whether to make it."""
    spec: BulkheadSpec = Field(default_factory=BulkheadSpec)
    """Its limits."""


class LeaderElection(ApiModel):
    """How long the Lease holds by which replicas take turns: each of these must be longer than the next."""

    lease_seconds: Annotated[int, Field(ge=3, le=3600)] = 15
    """How long a silent leader stays leader."""
    give_up_seconds: Annotated[int, Field(ge=2, le=3600)] = 10
    """A leader that could not renew for so long stops, and starts again as a follower."""
    renew_seconds: Annotated[int, Field(ge=1, le=3600)] = 2
    """How often it renews."""


class Budget(ApiModel):
    """The PodDisruptionBudget of the operator."""

    create: bool = True
    """Whether to make one where there is more than one replica."""


class ServiceAccount(ApiModel):
    """Whom the pods run as."""

    name: str = ""
    """By default the release's full name, with -gateway for the gateway."""
    annotations: Labels = Field(default_factory=dict)
    """For clouds that bind identities to service accounts."""


class Rbac(ApiModel):
    """The rights of users."""

    aggregate: bool = True
    """Give the cluster's roles admin, edit and view their rights on the kinds of Headrace."""


class Crds(ApiModel):
    """The CustomResourceDefinitions."""

    install: bool = True
    """Whether the release has them. They are kept when it is removed."""


class MetricsService(ApiModel):
    """A Service for the operator's metrics."""

    create: bool = True
    """Whether to make it."""
    annotations: Labels = Field(default_factory=dict)
    """For scrapers that go by annotations."""


class PodMonitor(ApiModel):
    """Scraping by the Prometheus operator."""

    create: bool = False
    """Whether to make one for the operator and one for the workers."""
    interval: Annotated[str, Field(pattern=r"^[0-9]+(ms|s|m)$")] = "30s"
    """How often to scrape."""
    labels: Labels = Field(default_factory=dict)
    """By which a Prometheus selects it."""


class PrometheusRule(ApiModel):
    """The alerts, for the Prometheus operator."""

    create: bool = False
    """Whether to make it."""
    labels: Labels = Field(default_factory=dict)
    """By which a Prometheus selects it."""
    runbooks: str = ""
    """URL of the folder of runbooks, in front of each alert's; empty: the path in the repository."""


class Dashboards(ApiModel):
    """Grafana dashboards in ConfigMaps."""

    create: bool = False
    """Whether to make them."""
    labels: Labels = Field(default_factory=lambda: {"grafana_dashboard": "1"})
    """By which Grafana's sidecar selects them."""
    annotations: Labels = Field(default_factory=dict)
    """For example the folder to put them in."""


class Metrics(ApiModel):
    """Seeing inside."""

    service: MetricsService = Field(default_factory=MetricsService)
    pod_monitor: PodMonitor = Field(default_factory=PodMonitor)
    prometheus_rule: PrometheusRule = Field(default_factory=PrometheusRule)
    dashboards: Dashboards = Field(default_factory=Dashboards)


class HeadersSecret(ApiModel):
    """Where the headers of exports are, which may be credentials."""

    name: str = ""
    """A Secret beside the operator, and one of the same name in each namespace where batches run; empty: no headers."""
    key: Annotated[str, Field(min_length=1)] = "headers"
    """Its key, whose value is as OTEL_EXPORTER_OTLP_HEADERS has it."""


class Tracing(ApiModel):
    """Spans of the operator and of the workers, by OTLP over HTTP."""

    endpoint: Annotated[str, Field(pattern=r"^(https?://[^@]+)?$")] = ""
    """URL of a collector; empty: no traces."""
    sampler: Literal[
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ] = "parentbased_always_on"
    """Which traces are kept whole; of the others only failures are."""
    sampler_ratio: Annotated[str, Field(pattern=rf"^({_RATIO})?$")] = ""
    """Their share, for a sampler that has one."""
    record_ratio: Annotated[str, Field(pattern=rf"^({_RATIO})$")] = "0.01"
    """The share of the records that have a span although they have not failed."""
    headers_secret: HeadersSecret = Field(default_factory=HeadersSecret)


class OperatorPolicy(ApiModel):
    """The NetworkPolicy of the operator."""

    create: bool = False
    """Whether to make it."""
    api_server_ports: tuple[Port, ...] = (443, 6443)
    """Ports at which the API server answers, before and behind the address of its Service."""
    api_servers: FreeObjects = ()
    """NetworkPolicy peers that are the API server; by default any address, for there is no pod to select it by."""


class WorkersPolicy(ApiModel):
    """The NetworkPolicy of the workers, in each namespace where batches run."""

    create: bool = False
    """Whether to make it."""
    namespaces: tuple[Name, ...] = ()
    """Where batches run; by default the namespaces that are served."""
    egress: FreeObjects = (
        {
            "to": [
                {"ipBlock": {"cidr": "0.0.0.0/0", "except": list(PUBLIC_V4)}},
                {"ipBlock": {"cidr": "::/0", "except": list(PUBLIC_V6)}},
            ],
            "ports": [{"protocol": "TCP", "port": 443}],
        },
    )
    """NetworkPolicy egress rules besides the name service; by default HTTPS to public addresses."""


class GatewayPolicy(ApiModel):
    """The NetworkPolicy of the gateway. The API server is reached by what is said of it for the operator."""

    create: bool = False
    """Whether to make it."""
    clients: FreeObjects = ()
    """NetworkPolicy peers that may call it; by default anybody in the cluster may."""
    egress: FreeObjects = (
        {"to": [{"namespaceSelector": {}}], "ports": [{"protocol": "TCP", "port": 4222}]},
        *WorkersPolicy().egress,
    )
    """NetworkPolicy egress rules besides the name service and the API server; by default NATS anywhere in the cluster, and HTTPS to public
    addresses, for object stores and webhooks."""


class NetworkPolicy(ApiModel):
    """Who may talk to whom, where the cluster's network enforces it."""

    operator: OperatorPolicy = Field(default_factory=OperatorPolicy)
    workers: WorkersPolicy = Field(default_factory=WorkersPolicy)
    gateway: GatewayPolicy = Field(default_factory=GatewayPolicy)
    dns: FreeObjects = ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}},)
    """NetworkPolicy peers that resolve names."""
    scrapers: FreeObjects = ()
    """NetworkPolicy peers that may read metrics; by default anybody in the cluster may."""
    collector: FreeObjects = ()
    """NetworkPolicy egress rules that lead to the collector of traces, for the operator, the gateway and the workers."""


class GatewayNats(ApiModel):
    """The NATS server that keeps single requests; it must have JetStream. Needed where the models have routes."""

    url: Annotated[str, Field(pattern=r"^((nats|tls)://.+)?$")] = ""
    """For example nats://nats.nats:4222."""
    credentials_secret: str = ""
    """A Secret beside the gateway: token, or username and password, or nats.creds; ca.crt; tls.crt and tls.key. Empty: it is open."""


class GatewayService(ApiModel):
    """The Service that clients call."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """Who reaches it may use it: mind what you open."""
    port: Port = 80
    """Its port."""
    annotations: Labels = Field(default_factory=dict)
    """For load balancers that go by annotations."""


class GatewayTenants(ApiModel):
    """Who may use it; without either, whoever reaches it may."""

    secret: str = ""
    """A Secret beside the gateway whose tenants.yaml says who they are and by which keys, and has what it names beside it."""
    token_review: bool = False
    """Who has a token of the cluster is the tenant of a namespace in which he may create batches."""
    audiences: tuple[str, ...] = ()
    """What such tokens must be meant for; by default the API server."""


class Gateway(ApiModel):
    """The second door: OpenAI's Files and Batches, and single requests."""

    enabled: bool = False
    """Whether there is one."""
    replicas: Annotated[int, Field(ge=0, le=10)] = 2
    """All of them accept; one at a time makes batches of requests."""
    namespace: str = ""
    """Where its batches are; by default the release's own namespace."""
    namespaces: tuple[Name, ...] = ()
    """Further namespaces in which it may make batches: those of tenants."""
    models: FreeObject = Field(default_factory=dict)
    """What `headrace gateway --models` reads: models, routes, webhooks. Must be set where it is enabled."""
    files: Annotated[str, Field(pattern=r"^((s3|gs|az|claim)://.+)?$")] = ""
    """Where uploads are kept: s3://BUCKET/PREFIX and the like, or claim://CLAIM/PATH. Must be set where it is enabled."""
    claims: tuple[Name, ...] = ()
    """PersistentVolumeClaims of the release's namespace that it mounts, to keep files there and to read outputs."""
    storage_secret: str = ""
    """A Secret beside the gateway whose keys become environment variables, as with spec.storage.secretRef of a batch."""
    webhook_keys_secret: str = ""
    """A Secret beside the gateway with the keys of webhooks; webhooks.keysFile is /etc/headrace/webhooks/KEY then."""
    max_file_bytes: Annotated[int, Field(ge=1)] = 2 * 2**30
    """Largest file that may be uploaded."""
    tenants: GatewayTenants = Field(default_factory=GatewayTenants)
    nats: GatewayNats = Field(default_factory=GatewayNats)
    service: GatewayService = Field(default_factory=GatewayService)
    service_account: ServiceAccount = Field(default_factory=ServiceAccount)
    resources: FreeObject = Field(
        default_factory=lambda: {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
    )
    """Requests and limits, as in a container."""


class Values(ApiModel):
    """The values of the chart. Nothing has to be set."""

    image: OperatorImage = Field(default_factory=OperatorImage)
    image_pull_secrets: FreeObjects = ()
    """Secrets with credentials for the registry, as in a pod."""
    worker: Worker = Field(default_factory=Worker)
    default_output: Annotated[str, Field(pattern=r"^([a-z0-9+.-]+://.*)?$")] = ""
    """URI below which a batch without spec.output.uri gets its folder; empty: each batch must name its output."""
    namespaces: tuple[Name, ...] = ()
    """Namespaces that are served; empty: all."""
    default_bulkhead: DefaultBulkhead = Field(default_factory=DefaultBulkhead)
    replicas: Annotated[int, Field(ge=0, le=10)] = 2
    """One acts, the others wait for its Lease."""
    leader_election: LeaderElection = Field(default_factory=LeaderElection)
    pod_disruption_budget: Budget = Field(default_factory=Budget)
    resources: FreeObject = Field(
        default_factory=lambda: {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
    )
    """Requests and limits of the operator, as in a container."""
    node_selector: Labels = Field(default_factory=dict)
    """Of the pods of the operator and of the gateway."""
    tolerations: FreeObjects = ()
    """Of the pods of the operator and of the gateway."""
    affinity: FreeObject = Field(default_factory=dict)
    """Of the operator's pods."""
    pod_annotations: Labels = Field(default_factory=dict)
    """Of the pods of the operator and of the gateway."""
    pod_labels: Labels = Field(default_factory=dict)
    """Of the pods of the operator and of the gateway."""
    priority_class_name: str = ""
    """Of the pods of the operator and of the gateway."""
    service_account: ServiceAccount = Field(default_factory=ServiceAccount)
    rbac: Rbac = Field(default_factory=Rbac)
    crds: Crds = Field(default_factory=Crds)
    metrics: Metrics = Field(default_factory=Metrics)
    tracing: Tracing = Field(default_factory=Tracing)
    network_policy: NetworkPolicy = Field(default_factory=NetworkPolicy)
    gateway: Gateway = Field(default_factory=Gateway)
    global_: Annotated[FreeObject, Field(alias="global")] = Field(default_factory=dict)
    """Values of a chart that has this one as a part; none of them is looked at."""


def values_schema() -> str:
    """`values.schema.json`. It has no defaults: those are in `values.yaml`, once."""
    schema = Values.model_json_schema(by_alias=True)
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **_without_noise(schema)}
    return json.dumps(whole, indent=2) + "\n"


def _without_noise(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_noise(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept: JsonObject = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            kept[key] = {name: _without_noise(inside) for name, inside in value.items()}
        elif key == "description":
            kept[key] = " ".join(value.split())
        elif key not in ("title", "default") and not key.startswith("x-kubernetes-"):
            kept[key] = _without_noise(value)
    return kept
