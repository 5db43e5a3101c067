"""The chart: what Helm makes of it, held against what the operator is."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.core import TyperGroup
from typer.main import get_command

from builders import PLACE, a_batch
from cluster import binaries
from cluster.messages import Unavailable
from generate.__main__ import differences, from_chart, from_models
from generate.values import Values
from headrace.api.base import JsonObject
from headrace.api.bulkhead import DEFAULT_BULKHEAD, Bulkhead
from headrace.api.crd import render_crds
from headrace.api.gateway import ServedModels
from headrace.cli.app import app
from headrace.core.children import run_job
from headrace.core.tracing.settings import tracing_of
from headrace.gateway.queues.leading import LEASE_NAME
from headrace.shells.kube import rbac

CHART = Path(__file__).parents[2] / "charts" / "headrace"
VALUES = sorted((Path(__file__).parent / "values").glob("*.yaml"))
ON_BY_DEFAULT = {"crds.install", "defaultBulkhead.create", "podDisruptionBudget.create", "metrics.service.create"}
GATEWAY = "gateway.enabled=true,gateway.models.models[0].model.name=a,gateway.files=s3://bucket/uploads"
USER_ROLES = {"headrace-admin", "headrace-edit", "headrace-view"}


@pytest.fixture(scope="session")
def helm() -> Path:
    try:
        return binaries.helm(print)
    except Unavailable as reason:
        pytest.skip(str(reason))


def render(helm: Path, *settings: str) -> list[JsonObject]:
    """All objects of a release."""
    command = [str(helm), "template", "headrace", str(CHART), "--namespace", "headrace-system"]
    done = subprocess.run([*command, *settings], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def of_kind(objects: list[JsonObject], kind: str) -> Iterator[JsonObject]:
    return (found for found in objects if found["kind"] == kind)


def deployment(objects: list[JsonObject], component: str = "operator") -> JsonObject:
    """The Deployment of one component."""
    found = of_kind(objects, "Deployment")
    (one,) = (it for it in found if it["metadata"]["labels"]["app.kubernetes.io/component"] == component)
    return one


def rights(rules: list[JsonObject]) -> set[tuple[str, str, str, str]]:
    """Rules as single rights: group, resource, name or empty for all, verb."""
    return {
        (group, resource, name, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
        for verb in rule["verbs"]
    }


def granted(objects: list[JsonObject], kind: str, namespace: str | None = None) -> set[tuple[str, str, str, str]]:
    """The rights that the operator is given in all namespaces, or in one."""
    roles = [role for role in of_kind(objects, kind) if role["metadata"].get("namespace") == namespace]
    return rights([rule for role in roles if role["metadata"]["name"] not in USER_ROLES for rule in role["rules"]])


@pytest.mark.parametrize("values", [None, *VALUES], ids=lambda values: values.stem if values else "default")
def test_chart_passes_the_linter(helm: Path, values: Path | None) -> None:
    settings = [f"--values={values}"] if values is not None else []
    done = subprocess.run([helm, "lint", "--strict", CHART, *settings], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all values that are not made of others."""
    if isinstance(value, dict) and value:
        for name, inside in value.items():
            yield from leaves(inside, (*path, name))
    else:
        yield path


def at(values: Any, path: tuple[str, ...]) -> Any:
    """What is there; None when nothing is."""
    for name in path:
        values = values.get(name) if isinstance(values, dict) else None
    return values


def test_values_of_the_tests_set_all_that_there_is_to_something_of_their_own() -> None:
    """So a template that breaks for a value is found where they are rendered, checked by an API server and installed."""
    defaults, files = (
        shown_defaults() | {"defaultBulkhead": Values().to_object()["defaultBulkhead"]},
        list(map(read, VALUES)),
    )
    unset = [path for path in leaves(defaults) if all(at(it, path) in (None, at(defaults, path)) for it in files)]
    assert {".".join(path) for path in unset} == ON_BY_DEFAULT


def read(path: Path) -> JsonObject:
    found: JsonObject = yaml.safe_load(path.read_text())
    return found


@pytest.mark.parametrize("values", [None, *VALUES], ids=lambda values: values.stem if values else "default")
def test_chart_objects_carry_the_labels_and_the_namespace_of_the_release(helm: Path, values: Path | None) -> None:
    for found in render(helm, *([f"--values={values}"] if values is not None else [])):
        if found["kind"] != "CustomResourceDefinition":
            assert found["metadata"]["labels"]["app.kubernetes.io/instance"] == "headrace", found["metadata"]
        if found["kind"] not in ("CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "Bulkhead"):
            assert found["metadata"]["namespace"] in ("headrace-system", "blue", "green")


def test_chart_defaults_are_those_of_the_model() -> None:
    assert yaml.safe_load((CHART / "values.yaml").read_text()) == shown_defaults()


def shown_defaults() -> JsonObject:
    """Those of the model, but for what no user of the chart sets."""
    defaults = Values().to_object()
    del defaults["global"]
    defaults["defaultBulkhead"]["spec"] = {}
    return defaults


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        pytest.param("replica=3", "replica", id="no such value"),
        pytest.param("replicas=many", "/replicas", id="a text for a number"),
        pytest.param("image.pullPolicy=Sometimes", "/image/pullPolicy", id="no such word"),
        pytest.param("defaultBulkhead.spec.capacity.gpu=8", "gpu", id="no such field of a Bulkhead"),
        pytest.param("image.digest=1234", "/image/digest", id="no digest"),
        pytest.param("tracing.endpoint=collector:4318", "/tracing/endpoint", id="no URL"),
        pytest.param("tracing.recordRatio=2", "/tracing/recordRatio", id="more than all records"),
        pytest.param("networkPolicy.workers.create=true", "networkPolicy.workers.namespaces", id="no namespaces"),
        pytest.param("gateway.enabled=true", "gateway.models", id="a gateway to no models"),
        pytest.param(f"{GATEWAY},gateway.files=", "gateway.files", id="a gateway without a place for files"),
        pytest.param(f"{GATEWAY},gateway.models.routes[0].name=a", "gateway.nats.url", id="a gateway without a queue"),
        pytest.param(
            f"{GATEWAY},gateway.tenants.secret=a,gateway.tenants.tokenReview=true", "gateway.tenants", id="two doormen"
        ),
        pytest.param(f"{GATEWAY},gateway.files=file:///uploads", "/gateway/files", id="files that no pod sees"),
    ],
)
def test_chart_refuses_a_value_and_names_it(helm: Path, setting: str, said: str) -> None:
    command = [str(helm), "template", "headrace", str(CHART), "--set", setting]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr


def test_chart_notes_say_what_to_do_next(helm: Path, tmp_path: Path) -> None:
    def notes(*settings: str) -> str:
        command = [str(helm), "install", "headrace", str(CHART), "--dry-run=client", "--namespace=hs", *settings]
        nowhere = {"KUBECONFIG": str(tmp_path / "none"), "HOME": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=nowhere)
        assert done.returncode == 0, done.stderr
        return done.stdout.partition("NOTES:")[2]

    assert "--set defaultOutput=" in notes()
    assert "kubectl apply -n blue" in notes("--set", "defaultOutput=s3://a/,namespaces={blue}")


def test_generated_files_are_fresh() -> None:
    assert list(differences(from_models())) == []


def test_install_manifest_is_what_the_chart_renders(helm: Path) -> None:
    assert list(differences(from_chart())) == []


def test_chart_gives_users_no_more_than_their_role_says(helm: Path) -> None:
    roles = {role["metadata"]["name"]: role for role in of_kind(render(helm), "ClusterRole")}
    for name in USER_ROLES:
        word = name.removeprefix("headrace-")
        assert roles[name]["metadata"]["labels"][f"rbac.authorization.k8s.io/aggregate-to-{word}"] == "true"
    assert {right[3] for right in rights(roles["headrace-view"]["rules"])} == {"get", "list", "watch"}
    assert {right[1] for right in rights(roles["headrace-edit"]["rules"])} == {"inferencebatches", "fanoutjobs"}
    without = render(helm, "--set", "rbac.aggregate=false")
    assert not USER_ROLES & {role["metadata"]["name"] for role in of_kind(without, "ClusterRole")}


def test_chart_alerts_and_dashboards_are_those_of_the_files(helm: Path) -> None:
    objects = render(helm, f"--values={VALUES[0]}")
    (rule,) = of_kind(objects, "PrometheusRule")
    written = yaml.safe_load((CHART / "files/alerts.yaml").read_text())
    for group, there in zip(written["groups"], rule["spec"]["groups"], strict=True):
        for alert, shown in zip(group["rules"], there["rules"], strict=True):
            runbook = f"https://example.com/runbooks/{alert['annotations'].pop('runbook_url')}"
            assert shown["annotations"].pop("runbook_url") == runbook
            assert shown == alert
    maps = [it for it in of_kind(objects, "ConfigMap") if "dashboard" in it["metadata"]["name"]]
    data = {name: json.loads(text) for it in maps for name, text in it["data"].items()}
    files = (CHART / "files/dashboards").glob("*.json")
    assert data == {f"headrace-{file.name}": json.loads(file.read_text()) for file in files}
    assert {it["metadata"]["labels"]["grafana_dashboard"] for it in maps} == {"yes"}


def test_chart_images_are_pinned_by_a_digest_where_one_is_given(helm: Path) -> None:
    objects = render(helm, f"--values={VALUES[-1]}")
    (container,) = deployment(objects)["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith("registry.example/headrace-operator@sha256:0123")
    assert environment(objects)["HEADRACE_WORKER_IMAGE"]["value"] == "registry.example/headrace-worker:v1"


def test_chart_network_policies_select_the_pods_that_there_are(helm: Path) -> None:
    objects = render(helm, f"--values={VALUES[-1]}")
    policies = {it["metadata"]["namespace"]: it["spec"] for it in of_kind(objects, "NetworkPolicy")}
    assert policies.keys() == {"headrace-system", "blue", "green"}
    operator = deployment(objects)["spec"]["template"]["metadata"]["labels"]
    batch = a_batch().validated().build()
    worker = run_job(batch, PLACE, suspend=False)["spec"]["template"]
    assert policies["headrace-system"]["podSelector"]["matchLabels"].items() <= operator.items()
    assert policies["blue"]["podSelector"]["matchLabels"].items() <= worker["metadata"]["labels"].items()
    to_workers = policies["headrace-system"]["egress"][-1]
    assert to_workers["to"][0]["podSelector"] == policies["blue"]["podSelector"]
    (port,) = worker["spec"]["containers"][0]["ports"]
    assert to_workers["ports"] == [{"protocol": "TCP", "port": port["containerPort"]}]
    assert policies["blue"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": port["name"]}]
    blocked = [it for rule in policies["blue"]["egress"][1:] for to in rule["to"] for it in to["ipBlock"]["except"]]
    assert "169.254.0.0/16" in blocked, "where clouds answer with credentials"


def test_chart_grants_what_the_operator_needs_and_no_more(helm: Path) -> None:
    objects = render(helm)
    assert granted(objects, "ClusterRole") == rights(rbac.rules())
    assert granted(objects, "Role", "headrace-system") == rights(rbac.lease_rules())


def test_chart_for_some_namespaces_grants_elsewhere_only_what_is_in_none(helm: Path) -> None:
    objects = render(helm, "--set", "namespaces={blue,green}")
    assert granted(objects, "ClusterRole") == rights(rbac.cluster_rules())
    assert granted(objects, "Role", "blue") == granted(objects, "Role", "green") == rights(rbac.namespaced_rules())
    assert environment(objects)["HEADRACE_NAMESPACES"]["value"] == "blue green"


def environment(objects: list[JsonObject], component: str = "operator") -> dict[str, Any]:
    (container,) = deployment(objects, component)["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable for variable in container["env"]}


def test_chart_tells_the_operator_of_a_collector_in_words_that_it_understands(helm: Path) -> None:
    variables = environment(render(helm, f"--values={VALUES[0]}"))
    said = {name: it["value"] for name, it in variables.items() if "value" in it}
    tracing = tracing_of(said)
    assert tracing is not None
    assert (tracing.sampler.ratio, tracing.sampler.parent_based) == (0.1, True)
    assert tracing.variables == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.monitoring:4318",
        "HEADRACE_TRACE_RECORD_RATIO": "0.001",
    }
    of_workers = tracing.references["OTEL_EXPORTER_OTLP_HEADERS"]["secretKeyRef"]
    of_operator = variables["OTEL_EXPORTER_OTLP_HEADERS"]["valueFrom"]["secretKeyRef"]
    assert of_workers == {**of_operator, "optional": True}
    assert not any(name.startswith("OTEL_") for name in environment(render(helm)))
    told = {name: it for name, it in variables.items() if not name.startswith("HEADRACE_") or "TRACE" in name}
    assert environment(render(helm, f"--values={VALUES[0]}"), "gateway") == told


def test_chart_lets_spans_through_where_network_policies_are_made(helm: Path) -> None:
    policies = list(of_kind(render(helm, f"--values={VALUES[0]}"), "NetworkPolicy"))
    assert len(policies) == 4
    for policy in policies:
        assert policy["spec"]["egress"][-1]["ports"] == [{"protocol": "TCP", "port": 4318}]


def test_chart_has_the_crds_of_this_version_and_keeps_them(helm: Path) -> None:
    found = {crd["metadata"]["name"]: crd for crd in of_kind(render(helm), "CustomResourceDefinition")}
    ours = {crd["metadata"]["name"]: crd for crd in map(yaml.safe_load, render_crds().values())}
    assert found.keys() == ours.keys()
    for name, crd in found.items():
        assert crd["metadata"]["annotations"].pop("helm.sh/resource-policy") == "keep"
        assert crd["spec"] == ours[name]["spec"]
    assert not list(of_kind(render(helm, "--set", "crds.install=false"), "CustomResourceDefinition"))


def test_chart_ships_a_default_bulkhead_unless_it_is_unwanted(helm: Path) -> None:
    (shipped,) = of_kind(render(helm, "--set", "defaultBulkhead.spec.capacity.gpus=8"), "Bulkhead")
    assert Bulkhead.parse(shipped).name == DEFAULT_BULKHEAD
    assert Bulkhead.parse(shipped).spec.capacity.gpus == 8
    assert not list(of_kind(render(helm, "--set", "defaultBulkhead.create=false"), "Bulkhead"))


@pytest.mark.parametrize(
    ("component", "settings"), [("operator", ()), ("gateway", (f"--values={VALUES[0]}",))], ids=["operator", "gateway"]
)
def test_chart_pods_pass_pod_security_restricted(helm: Path, component: str, settings: tuple[str, ...]) -> None:
    pod = deployment(render(helm, *settings), component)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["requests"]
    assert container["resources"]["limits"]


def test_chart_replicas_beyond_one_are_protected_from_a_drain(helm: Path) -> None:
    (budget,) = of_kind(render(helm), "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1
    assert not list(of_kind(render(helm, "--set", "replicas=1"), "PodDisruptionBudget")), "it would forbid every drain"


def test_chart_has_a_gateway_only_where_it_is_enabled(helm: Path) -> None:
    assert not [it for it in render(helm) if "gateway" in it["metadata"]["name"]]
    kinds = {
        it["kind"] for it in render(helm, "--set", GATEWAY) if it["metadata"]["name"].startswith("headrace-gateway")
    }
    assert kinds == {
        *("ServiceAccount", "Role", "RoleBinding", "ConfigMap", "Deployment", "Service", "PodDisruptionBudget"),
    }


def test_chart_has_the_gateway_scraped_where_it_is_enabled(helm: Path) -> None:
    asked = ("--set", "metrics.podMonitor.create=true")
    names = [
        {it["metadata"]["name"] for it in of_kind(render(helm, *more), "PodMonitor")}
        for more in (asked, (*asked, "--set", GATEWAY))
    ]
    assert names[1] - names[0] == {"headrace-gateway"}
    monitors = of_kind(render(helm, *asked, "--set", GATEWAY), "PodMonitor")
    (monitor,) = (it for it in monitors if it["metadata"]["name"] == "headrace-gateway")
    template = deployment(render(helm, "--set", GATEWAY), "gateway")["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    ports = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
    assert {it["port"] for it in monitor["spec"]["podMetricsEndpoints"]} <= ports


def test_chart_starts_the_gateway_with_words_that_it_understands(helm: Path) -> None:
    (container,) = deployment(render(helm, f"--values={VALUES[0]}"), "gateway")["spec"]["template"]["spec"][
        "containers"
    ]
    command = get_command(app)
    word, *words = container["args"]
    assert isinstance(command, TyperGroup)
    asked = command.commands[word].make_context(word, words).params
    assert (asked["local"], asked["namespace"], asked["port"]) == (
        False,
        "blue",
        container["ports"][0]["containerPort"],
    )
    assert (asked["files"], asked["max_file_bytes"]) == ("s3://results/uploads/", 2**30)
    assert (asked["nats"], asked["nats_credentials"]) == ("nats://nats.nats:4222", Path("/etc/headrace/nats"))
    assert list(asked["mount"]) == ["data=/claims/data"]
    assert (asked["token_review"], list(asked["audience"])) == (True, ["headrace-gateway"])
    assert (asked["worker_image"], asked["pool_owner"]) == (worker_image(helm), "headrace-gateway-pools")
    mounts = {it["mountPath"] for it in container["volumeMounts"]}
    assert mounts == {"/etc/headrace/config", "/etc/headrace/nats", "/etc/headrace/webhooks", "/tmp", "/claims/data"}


def worker_image(helm: Path) -> str:
    """The one that the operator is told."""
    return str(environment(render(helm, f"--values={VALUES[0]}"))["HEADRACE_WORKER_IMAGE"]["value"])


def test_chart_has_something_that_the_workers_of_warm_pools_belong_to(helm: Path) -> None:
    found = [
        it["metadata"]["namespace"]
        for it in render(helm, f"--values={VALUES[0]}")
        if it["metadata"]["name"] == "headrace-gateway-pools"
    ]
    assert found == ["blue"] * 3
    assert not [it for it in render(helm, "--set", GATEWAY) if it["metadata"]["name"].endswith("-pools")]


def test_chart_hands_the_gateway_its_models_as_they_are_written(helm: Path, tmp_path: Path) -> None:
    objects = render(helm, f"--values={VALUES[0]}")
    (config,) = (it for it in of_kind(objects, "ConfigMap") if it["metadata"]["name"] == "headrace-gateway")
    said = yaml.safe_load(config["data"]["models.yaml"])
    assert said == read(VALUES[0])["gateway"]["models"]
    assert ServedModels.parse(said).routes[0].name == "chat"


def test_chart_grants_the_gateway_what_it_needs_and_no_more(helm: Path) -> None:
    objects = render(helm, f"--values={VALUES[0]}")
    roles = {
        (role["metadata"]["namespace"], role["metadata"]["name"]): rights(role["rules"])
        for role in of_kind(objects, "Role")
        if role["metadata"]["labels"]["app.kubernetes.io/component"] == "gateway"
    }
    assert roles == {
        ("blue", "headrace-gateway"): rights(rbac.gateway_rules()),
        ("green", "headrace-gateway"): rights(rbac.gateway_rules()),
        ("blue", "headrace-gateway-pools"): rights(rbac.pool_rules("headrace-gateway-pools")),
        ("headrace-system", "headrace-gateway-lease"): rights(rbac.lease_rules(LEASE_NAME)),
    }
    (asks,) = (role for role in of_kind(objects, "ClusterRole") if role["metadata"]["name"] == "headrace-gateway")
    assert rights(asks["rules"]) == rights(rbac.review_rules())
    bound = [it for it in of_kind(objects, "RoleBinding") if it["metadata"]["name"].startswith("headrace-gateway")]
    assert {subject["name"] for it in bound for subject in it["subjects"]} == {"door"}


def test_chart_gives_the_gateway_its_tenants_by_a_secret(helm: Path) -> None:
    pod = deployment(render(helm, f"--values={VALUES[-1]}"), "gateway")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert "--tenants=/etc/headrace/tenants/tenants.yaml" in container["args"]
    assert {"name": "tenants", "secret": {"secretName": "tenants"}} in pod["volumes"]
