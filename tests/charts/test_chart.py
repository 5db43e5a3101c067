"""The chart: what Helm makes of it, held against what the operator is."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import binaries
from cluster.messages import Unavailable
from headrace.api.base import JsonObject
from headrace.api.bulkhead import DEFAULT_BULKHEAD, Bulkhead
from headrace.api.crd import render_crds
from headrace.shells.kube import rbac

CHART = Path(__file__).parents[2] / "charts" / "headrace"


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
    roles = [role for role in of_kind(objects, kind) if role["metadata"].get("namespace") == namespace]
    return rights([rule for role in roles for rule in role["rules"]])


def test_chart_passes_the_linter(helm: Path) -> None:
    done = subprocess.run([helm, "lint", "--strict", CHART], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_chart_grants_what_the_operator_needs_and_no_more(helm: Path) -> None:
    objects = render(helm)
    assert granted(objects, "ClusterRole") == rights(rbac.rules())
    assert granted(objects, "Role", "headrace-system") == rights(rbac.lease_rules())


def test_chart_for_some_namespaces_grants_elsewhere_only_what_is_in_none(helm: Path) -> None:
    objects = render(helm, "--set", "namespaces={blue,green}")
    assert granted(objects, "ClusterRole") == rights(rbac.cluster_rules())
    assert granted(objects, "Role", "blue") == granted(objects, "Role", "green") == rights(rbac.namespaced_rules())
    assert environment(objects)["HEADRACE_NAMESPACES"]["value"] == "blue green"


def environment(objects: list[JsonObject]) -> dict[str, Any]:
    (deployment,) = of_kind(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable for variable in container["env"]}


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


def test_chart_operator_passes_pod_security_restricted(helm: Path) -> None:
    (deployment,) = of_kind(render(helm), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
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
