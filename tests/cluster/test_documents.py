"""Every YAML in the documentation is what an API server takes, and every example too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from documents import ROOT, Snippet, merged, resolved, snippets
from headrace.api.base import ApiModel
from headrace.api.branches import Branch
from headrace.api.fanoutjob import FanOutJobSpec
from headrace.api.inferencebatch import InferenceBatchSpec
from headrace.api.kinds import KINDS
from headrace.api.scheduledgeneration import ScheduledGenerationSpec

from .cluster import Cluster
from .kubectl import Kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

DRY_RUN = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts", "--filename=-")
NO_OBJECTS = ("Kustomization", "networkPolicy", "models", "webhooks", "tenants", "gateway", "config", "endpoints")
"""No specs: a kustomization, values of the chart, the gateway's file of models or a part of it, which other tests read, and a status."""
WORK = {"model": {"name": "mock"}, "engine": {"name": "mock"}}
INPUT = {"uri": "s3://in/records.jsonl", "format": "jsonl"}
BASES: dict[str, tuple[type[ApiModel], dict[str, Any]]] = {
    "InferenceBatch": (InferenceBatchSpec, {**WORK, "input": INPUT}),
    "ScheduledGeneration": (
        ScheduledGenerationSpec,
        {"schedule": "@daily", "template": {"inferenceBatch": {**WORK, "input": INPUT}}},
    ),
    "FanOutJob": (FanOutJobSpec, {"branches": [{"name": "one", **WORK}, {"name": "two", **WORK}], "input": INPUT}),
}


@pytest.fixture(scope="module", autouse=True)
def crds(cluster: Cluster) -> None:
    cluster.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={ROOT / 'crds'}")
    names = [f"crd/{kind.plural}.headrace.dev" for kind in KINDS]
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=180s", *names)


def objects() -> Iterator[Snippet]:
    for snippet in snippets():
        if snippet.document.get("kind") not in NO_OBJECTS and not set(NO_OBJECTS) & snippet.document.keys():
            yield snippet


def whole(document: dict[str, Any]) -> dict[str, Any]:
    """The object, or one that has the fragment in its spec or in a branch."""
    if "apiVersion" in document:
        return document
    for kind, (model, base) in BASES.items():
        if document.keys() <= fields(model):
            return fragment(kind, merged(base, document))
    assert document.keys() <= fields(Branch), f"{sorted(document)} are fields of no one kind"
    return fragment("FanOutJob", {"branches": [{"name": "one", **WORK, **document}], "input": INPUT})


def fields(model: type[ApiModel]) -> set[str | None]:
    return {field.alias for field in model.model_fields.values()}


def fragment(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "headrace.dev/v1alpha1", "kind": kind, "metadata": {"name": "fragment"}, "spec": spec}


@pytest.mark.parametrize("snippet", [pytest.param(it, id=it.where) for it in objects()])
def test_yaml_of_the_documentation_is_applied(kubectl: Kubectl, snippet: Snippet) -> None:
    kubectl(*DRY_RUN, "--namespace=default", stdin=yaml.safe_dump(resolved(whole(snippet.document))))


@pytest.mark.parametrize(
    "file", sorted((ROOT / "manifests/examples").glob("*.yaml")), ids=lambda file: str(Path(file).name)
)
def test_example_is_applied(kubectl: Kubectl, file: Path) -> None:
    documents = [resolved(document) for document in yaml.safe_load_all(file.read_text())]
    kubectl(*DRY_RUN, "--namespace=default", stdin=yaml.safe_dump_all(documents))
