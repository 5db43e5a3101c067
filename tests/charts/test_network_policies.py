"""The chart's NetworkPolicies, evaluated for each connection that the components make, and for those that they must not.

A test cluster's network seldom enforces policies, so what they let through is worked out here, from the objects that Helm renders and the
pods that the chart and the operator make.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from builders import PLACE, a_batch
from headrace.api.addresses import is_of_the_node
from headrace.api.base import JsonObject
from headrace.api.gateway import ServedModel
from headrace.api.worker import Role
from headrace.core.asking.pool import pool_batch
from headrace.core.asking.poolpods import SERVE_PORT, named, pool_job
from headrace.core.children import run_job, single_job
from network import Peer, lets_through
from pool_rig import route

from .test_chart import GATEWAY, VALUES, deployment, helm, of_kind, render

__all__ = ["helm"]

SYSTEM, TEAM, METRICS = "headrace-system", "blue", 9400
API_SERVER, PUBLIC, PUBLIC_V6 = Peer("10.0.0.10"), Peer("93.184.215.14"), Peer("2606:2800:21f:cb07:6820:80da:af6b:8b2c")
NAMES = Peer("10.1.0.53", "kube-system", {"k8s-app": "kube-dns"})
MONITORING = Peer("10.1.0.90", "monitoring", {"app": "prometheus"})
COLLECTOR = Peer("10.1.0.91", "monitoring", {"app": "collector"})
STORE = Peer("10.1.0.92", "minio", {"app": "minio"})
STRANGER = Peer("10.1.0.99", "shop", {"app": "shop"})
METADATA = (
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "fe80::1",
)
"""Where clouds answer with credentials of the node."""
WITH_ALL = f"--values={VALUES[0]}"
BY_DEFAULT = ("--set=networkPolicy.operator.create=true,networkPolicy.workers.create=true", "--set=namespaces={blue}")


def pod(address: str, namespace: str, template: JsonObject) -> Peer:
    """A pod of a template, as policies see it."""
    ports = {
        port["name"]: port["containerPort"] for it in template["spec"]["containers"] for port in it.get("ports", ())
    }
    return Peer(address, namespace, template["metadata"]["labels"], ports)


def workers() -> Iterator[Peer]:
    """A pod of each role."""
    batch = a_batch().validated().build()
    for number, role in enumerate(Role):
        job = run_job(batch, PLACE, suspend=False) if role == Role.RUN else single_job(batch, PLACE, role, 1)
        yield pod(f"10.1.1.{number}", TEAM, job["spec"]["template"])


class Net(NamedTuple):
    """The policies of a release, and its operator, or another component."""

    policies: list[JsonObject]
    operator: Peer

    def lets(self, source: Peer, destination: Peer, port: int, protocol: str = "TCP") -> bool:
        return lets_through(self.policies, source, destination, port, protocol)


def net(helm: Path, *settings: str, component: str = "operator") -> Net:
    objects = render(helm, *settings)
    made = deployment(objects, component)["spec"]["template"]
    return Net(list(of_kind(objects, "NetworkPolicy")), pod("10.1.0.8", SYSTEM, made))


RUN = next(it for it in workers() if it.ports)


@pytest.mark.parametrize("settings", [BY_DEFAULT, (WITH_ALL,)], ids=["default", "everything"])
def test_the_operator_reaches_the_api_server_and_the_progress_of_workers_and_nothing_else_in_the_cluster(
    helm: Path, settings: tuple[str, ...]
) -> None:
    here = net(helm, *settings)
    assert here.lets(here.operator, API_SERVER, 6443)
    assert here.lets(here.operator, RUN, METRICS)
    assert not here.lets(here.operator, RUN, 22)
    for other in (STRANGER, STORE, MONITORING):
        assert not here.lets(here.operator, other, 80)
        assert not here.lets(here.operator, other, METRICS)


def test_the_operator_reaches_the_addresses_of_the_api_server_alone_where_they_are_known(helm: Path) -> None:
    anywhere, known = net(helm, *BY_DEFAULT), net(helm, WITH_ALL)
    assert anywhere.lets(anywhere.operator, PUBLIC, 443), "no policy can name a Service that has no pods"
    assert known.lets(known.operator, API_SERVER, 6443)
    assert not known.lets(known.operator, PUBLIC, 6443)


def test_workers_of_every_role_reach_names_and_https_at_public_addresses(helm: Path) -> None:
    here = net(helm, *BY_DEFAULT)
    for worker in workers():
        assert here.lets(worker, NAMES, 53)
        assert here.lets(worker, NAMES, 53, "UDP")
        assert here.lets(worker, PUBLIC, 443)
        assert here.lets(worker, PUBLIC_V6, 443)


def test_workers_of_no_role_reach_the_cluster_its_api_server_or_each_other(helm: Path) -> None:
    here = net(helm, *BY_DEFAULT)
    for worker in workers():
        for other in (API_SERVER, STRANGER, STORE, MONITORING, here.operator, RUN):
            assert not [port for port in (22, 80, 443, 6443, 8080, 9000, METRICS) if here.lets(worker, other, port)]
        assert not here.lets(worker, PUBLIC, 80), "no plain HTTP"
        assert not here.lets(worker, PUBLIC, 53), "names are resolved in the cluster, and nothing is tunnelled out so"


@pytest.mark.parametrize("address", METADATA)
def test_workers_reach_no_address_where_a_cloud_answers_with_credentials(helm: Path, address: str) -> None:
    assert is_of_the_node(address)
    here = net(helm, *BY_DEFAULT)
    assert not [port for port in (80, 443) for worker in workers() if here.lets(worker, Peer(address), port)]


def test_an_object_store_and_a_collector_inside_the_cluster_are_reached_by_the_rules_that_name_them(helm: Path) -> None:
    here = net(helm, WITH_ALL)
    for worker in workers():
        assert here.lets(worker, STORE, 9000)
        assert here.lets(worker, COLLECTOR, 4318)
        assert not here.lets(worker, PUBLIC, 443), "egress replaces what is allowed by default"
        assert not here.lets(worker, NAMES, 53), "names are resolved elsewhere, by these values"
    assert here.lets(here.operator, COLLECTOR, 4318)
    assert not here.lets(here.operator, STORE, 9000)


def test_metrics_are_read_by_anybody_in_the_cluster_until_scrapers_are_named(helm: Path) -> None:
    open_, closed = net(helm, *BY_DEFAULT), net(helm, WITH_ALL)
    for here, stranger in ((open_, True), (closed, False)):
        assert here.lets(MONITORING, here.operator, here.operator.ports["http"])
        assert here.lets(MONITORING, RUN, METRICS)
        assert here.lets(STRANGER, here.operator, here.operator.ports["http"]) == stranger
        assert here.lets(STRANGER, RUN, METRICS) == stranger
        assert here.lets(here.operator, RUN, METRICS), "scraper or not, the operator reads how far the work is"


def test_nothing_but_metrics_is_reached_in_the_operator_or_a_worker(helm: Path) -> None:
    here = net(helm, *BY_DEFAULT)
    for target in (here.operator, *workers()):
        assert not [port for port in (22, 80, 443, 6443) if here.lets(MONITORING, target, port)]


def test_pods_of_others_are_left_alone(helm: Path) -> None:
    here = net(helm, *BY_DEFAULT)
    neighbour = Peer("10.1.0.77", TEAM, {"app": "neighbour"})
    assert here.lets(neighbour, STRANGER, 80)
    assert here.lets(STRANGER, neighbour, 80)


def test_a_pod_of_another_namespace_that_looks_like_the_operator_reads_no_progress_of_workers(helm: Path) -> None:
    here = net(helm, WITH_ALL)
    lookalike = Peer("10.1.0.66", "shop", here.operator.labels, here.operator.ports)
    assert not here.lets(lookalike, RUN, METRICS)


SHOP, NATS = Peer("10.1.0.99", "shop", {"app": "shop"}), Peer("10.1.0.93", "nats", {"app": "nats"})
TO_GATEWAY = (f"--set={GATEWAY},networkPolicy.gateway.create=true",)


@pytest.mark.parametrize("settings", [TO_GATEWAY, (WITH_ALL,)], ids=["default", "everything"])
def test_the_gateway_reaches_names_the_api_server_and_its_queue_and_is_called_by_its_clients(
    helm: Path, settings: tuple[str, ...]
) -> None:
    here = net(helm, *settings, component="gateway")
    assert here.lets(SHOP, here.operator, here.operator.ports["http"])
    assert here.lets(MONITORING, here.operator, 8080) == (settings == TO_GATEWAY), "by default anybody may call it"
    assert here.lets(here.operator, API_SERVER, 6443)
    assert here.lets(here.operator, NATS, 4222)
    assert here.lets(here.operator, PUBLIC, 443) == (settings == TO_GATEWAY), "object stores, and webhooks"
    assert not [port for port in (22, 80, 8080, 9400) if here.lets(here.operator, SHOP, port)]
    assert not [address for address in METADATA if here.lets(here.operator, Peer(address), 80)]


def test_workers_of_warm_pools_are_told_of_requests_by_the_gateway_alone(helm: Path) -> None:
    here, operator = net(helm, WITH_ALL, component="gateway"), net(helm, WITH_ALL).operator
    served = ServedModel.parse({"model": {"name": "small"}})
    job = pool_job(pool_batch(route(), served, TEAM), PLACE, route(), SYSTEM, None)
    worker = pod("10.1.1.50", TEAM, named(job, "pool-chat-1", "secret")["spec"]["template"])
    assert here.lets(here.operator, worker, SERVE_PORT)
    assert not here.lets(here.operator, RUN, SERVE_PORT), "no worker of a batch listens there"
    for other in (operator, SHOP, MONITORING, RUN, worker):
        assert not here.lets(other, worker, SERVE_PORT)
    assert not here.lets(worker, NATS, 4222), "they have nothing to look for in the queue"
