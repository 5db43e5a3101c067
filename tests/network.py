"""What NetworkPolicies let through, worked out as the API describes it: for clusters whose network enforces none.

A connection is let through when the source's pod may open it and the destination's pod may take it. A pod that no policy selects for a
direction may do anything in it; one that some select may do what any of them allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from headrace.api.base import JsonObject

NAMESPACE_NAME = "kubernetes.io/metadata.name"
"""The label that every namespace has."""


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod, or an address that is no pod's."""

    address: str
    namespace: str = ""
    """Empty for what is no pod."""
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    """The ports of its containers by name."""


def lets_through(
    policies: Iterable[JsonObject], source: Peer, destination: Peer, port: int, protocol: str = "TCP"
) -> bool:
    """Whether `source` may open a connection to that port of `destination`."""
    listed = list(policies)
    leaving = _allowed(listed, "Egress", source, destination, (destination, port, protocol))
    return leaving and _allowed(listed, "Ingress", destination, source, (destination, port, protocol))


def _allowed(policies: list[JsonObject], direction: str, pod: Peer, other: Peer, target: tuple[Peer, int, str]) -> bool:
    rules_of, peers_of = {"Egress": ("egress", "to"), "Ingress": ("ingress", "from")}[direction]
    chosen = [policy["spec"] for policy in policies if direction in _types(policy) and _selects_pod(policy, pod)]
    rules = [rule for spec in chosen for rule in spec.get(rules_of) or ()]
    return not chosen or any(
        _has_port(rule, *target) and _has_peer(rule.get(peers_of), other, pod.namespace) for rule in rules
    )


def _types(policy: JsonObject) -> list[str]:
    implied = ["Ingress", *(["Egress"] if "egress" in policy["spec"] else [])]
    found: list[str] = policy["spec"].get("policyTypes", implied)
    return found


def _selects_pod(policy: JsonObject, pod: Peer) -> bool:
    same = bool(pod.namespace) and policy["metadata"]["namespace"] == pod.namespace
    return same and _matches(policy["spec"]["podSelector"], pod.labels)


def _has_port(rule: JsonObject, destination: Peer, port: int, protocol: str) -> bool:
    """No ports are all ports; a name is that of a port of the pod that is connected to."""
    ports = rule.get("ports")
    return not ports or any(
        one.get("protocol", "TCP") == protocol
        and ("port" not in one or destination.ports.get(one["port"], one["port"]) == port)
        for one in ports
    )


def _has_peer(peers: list[JsonObject] | None, other: Peer, namespace: str) -> bool:
    """No peers are all peers. One without a namespaceSelector is in the namespace of the policy."""
    return not peers or any(_is_peer(peer, other, namespace) for peer in peers)


def _is_peer(peer: JsonObject, other: Peer, namespace: str) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        return _within(other.address, [block["cidr"]]) and not _within(other.address, block.get("except", ()))
    if not other.namespace:
        return False
    if "namespaceSelector" in peer:
        here = _matches(peer["namespaceSelector"], {NAMESPACE_NAME: other.namespace})
    else:
        here = other.namespace == namespace
    return here and _matches(peer.get("podSelector", {}), other.labels)


def _within(address: str, networks: Iterable[str]) -> bool:
    found = ip_address(address)
    return any(found in ip_network(network) for network in networks)


def _matches(selector: JsonObject, labels: Mapping[str, str]) -> bool:
    """An empty selector takes everything. What the chart does not use is refused, so that it is not overlooked."""
    assert selector.keys() <= {"matchLabels"}, selector
    return bool(selector.get("matchLabels", {}).items() <= labels.items())
