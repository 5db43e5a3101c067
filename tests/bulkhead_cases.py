"""Specs of a Bulkhead, good and bad: a table that Python and a real API server must agree on."""

from __future__ import annotations

from typing import Any

import pytest

JsonObject = dict[str, Any]
DAY: JsonObject = {"name": "day", "resource": "gpuSeconds", "limit": 3600}

BAD = (
    pytest.param({"capacity": {"gpus": -1}}, "spec.capacity.gpus", id="negative GPUs"),
    pytest.param({"capacity": {"gpu": 1}}, "spec.capacity.gpu", id="a field that is not there"),
    pytest.param({"capacity": {"startsPerMinute": 0}}, "spec.capacity.startsPerMinute", id="nobody may ever start"),
    pytest.param({"perNamespace": {"startsPerMinute": 1}}, "spec.perNamespace.startsPerMinute", id="starts of a namespace"),
    pytest.param({"perResource": [{"name": "gpu", "gpus": 1}]}, "spec.perResource[0].name", id="a GPU without a vendor"),
    pytest.param({"perResource": [{"name": "a.b/c", "gpus": 1}] * 2}, "spec.perResource", id="a kind of GPU twice"),
    pytest.param({"ordering": []}, "spec.ordering", id="no ordering"),
    pytest.param({"ordering": ["Size"]}, "spec.ordering[0]", id="an unknown order"),
    pytest.param({"ordering": ["Priority", "Priority"]}, "spec.ordering", id="an order twice"),
    pytest.param({"ordering": ["Age", "FairShare"]}, "spec.ordering", id="something after age"),
    pytest.param({"budgets": [{**DAY, "windowSeconds": 59}]}, "spec.budgets[0].windowSeconds", id="a window of less than a minute"),
    pytest.param({"budgets": [{**DAY, "resource": "dollars"}]}, "spec.budgets[0].resource", id="a budget of money"),
    pytest.param({"budgets": [{**DAY, "limit": 0}]}, "spec.budgets[0].limit", id="a budget of nothing"),
    pytest.param({"budgets": [DAY, DAY]}, "spec.budgets", id="two budgets of one name"),
    pytest.param({"preemption": "Always"}, "spec.preemption", id="an unknown preemption"),
    pytest.param(
            {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In"}]}},
            "spec.namespaceSelector.matchExpressions[0]", id="in no list"),
    pytest.param(
            {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "Exists", "values": ["a"]}]}},
            "spec.namespaceSelector.matchExpressions[0]", id="existing with a value"),
)  # fmt: skip
"""A spec, and the field that is wrong in it."""

EVERYTHING: JsonObject = {
    "capacity": {"gpus": 8, "pods": 20, "batches": 5, "endpointCalls": 256, "startsPerMinute": 10, "tokensPerMinute": 10**6},
    "perNamespace": {"gpus": 4, "pods": 10, "batches": 2, "endpointCalls": 64},
    "perResource": [{"name": "nvidia.com/mig-1g.10gb", "gpus": 2}],
    "ordering": ["FairShare", "Priority", "Age"],
    "preemption": "Never",
    "reserveAfterSeconds": 60,
    "budgets": [{**DAY, "windowSeconds": 86400, "scope": "Namespace"}],
    "namespaceSelector": {
        "matchLabels": {"team": "search"},
        "matchExpressions": [{"key": "stage", "operator": "NotIn", "values": ["test"]}],
    },
}  # fmt: skip
"""All that can be said."""


def manifest(spec: JsonObject, name: str = "prod") -> JsonObject:
    """A Bulkhead of that spec."""
    return {"apiVersion": "headrace.dev/v1alpha1", "kind": "Bulkhead", "metadata": {"name": name}, "spec": spec}
