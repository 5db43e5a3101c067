"""Tenants of a gateway by the tokens of a real API server: TokenReview, and SubjectAccessReview."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from kubernetes.aio import client
from starlette.requests import HTTPConnection

from headrace.api import labels
from headrace.core.openai.errors import ApiError
from headrace.gateway.clocks import WallClock
from headrace.gateway.tenants.reviewed import Reviewed
from headrace.shells.kube.api import Api
from headrace.shells.kube.operator import load_configuration

from .cluster import Cluster
from .kubectl import Kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

AUDIENCE = "headrace-gateway"


@pytest.fixture
def may_create(kubectl: Kubectl, namespace: str) -> str:
    """A namespace whose service account `default` may create batches there."""
    rule = {"apiGroups": [labels.GROUP], "resources": ["inferencebatches"], "verbs": ["create"]}
    about = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "batches", "namespace": namespace}}
    who = {"kind": "ServiceAccount", "name": "default", "namespace": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "batches"}
    for made in (
        {**about, "kind": "Role", "rules": [rule]},
        {**about, "kind": "RoleBinding", "subjects": [who], "roleRef": reference},
    ):
        kubectl("create", "--filename=-", stdin=json.dumps(made))
    return namespace


def outcome(kubeconfig: Path, token: str, wanted: str | None, *audiences: str) -> str:
    """The namespace of the tenant; or the status of the refusal."""
    headers = {"authorization": f"Bearer {token}", **({"openai-project": wanted} if wanted is not None else {})}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def ask() -> str:
        async with client.ApiClient(await load_configuration(kubeconfig)) as api_client:
            identities = Reviewed(Api(api_client), WallClock(), audiences)
            try:
                return (await identities.tenant(HTTPConnection({"type": "http", "headers": raw}))).namespace
            except ApiError as error:
                return str(error.status)

    return asyncio.run(ask())


def test_service_account_is_the_tenant_of_the_namespaces_where_it_may_create_batches(
    cluster: Cluster, kubectl: Kubectl, may_create: str
) -> None:
    token = kubectl("create", "token", "default", "--namespace", may_create).strip()
    assert outcome(cluster.kubeconfig, token, None) == may_create
    assert outcome(cluster.kubeconfig, token, may_create) == may_create
    assert outcome(cluster.kubeconfig, token, "kube-system") == "403"
    assert outcome(cluster.kubeconfig, f"{token}x", None) == "401"
    assert outcome(cluster.kubeconfig, token, None, AUDIENCE) == "401", "it is meant for the API server"
    meant = kubectl("create", "token", "default", "--namespace", may_create, "--audience", AUDIENCE).strip()
    assert outcome(cluster.kubeconfig, meant, None, AUDIENCE) == may_create
    assert outcome(cluster.kubeconfig, meant, None) == "401"
