"""Where we may go when somebody else has written the URL. Pure: names and addresses in, yes or no out.

Public addresses only, unless somebody who runs this says otherwise. An IPv6 address that only carries an IPv4 address is judged
by both, for a gateway would take it there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address

_NAT64 = ip_network("64:ff9b::/96")
_LAST_32_BITS = 2**32 - 1
_METADATA = frozenset(map(ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254")))
"""Where clouds answer whoever asks from a node, besides link-local addresses."""


class AddressPolicy:
    """Which hosts and which addresses are allowed."""

    def __init__(self, hosts: Collection[str], networks: Iterable[str]) -> None:
        """`hosts`: such as `example.org` and `*.example.org`; none for all. `networks`: ranges that need not be public."""
        self._hosts = hosts
        self._networks = tuple(ip_network(text, strict=False) for text in networks)

    def allows_host(self, host: str) -> bool:
        """Whether URLs may name this host; what address it has is another question."""
        name = host.lower().rstrip(".")
        return not self._hosts or any(_matches(name, pattern) for pattern in self._hosts)

    def allows_address(self, address: str) -> bool:
        """Whether a connection to this address may be made."""
        found = ip_address(address.partition("%")[0])
        return any(found in network for network in self._networks) or all(map(_is_public, _meanings(found)))


def is_of_the_node(address: str) -> bool:
    """Whether it is link-local or of a cloud's metadata service: what answers there may give away the credentials of the node."""
    found = ip_address(address.partition("%")[0])
    return any(it.is_link_local or it in _METADATA for it in _meanings(found))


def _matches(name: str, pattern: str) -> bool:
    return name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern


def _meanings(address: Address) -> list[Address]:
    """The address, and the IPv4 address inside it."""
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address in _NAT64:
        return [IPv4Address(int(address) & _LAST_32_BITS)]
    return [address] if address.sixtofour is None else [address, address.sixtofour]


def _is_public(address: Address) -> bool:
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)
