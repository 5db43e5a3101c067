"""Where a worker may go for media. Pure: names and addresses in, yes or no out.

Public addresses only, unless `input.media.allowedNetworks` says otherwise. An IPv6 address that only carries an IPv4 address is judged
by both, for a gateway would take it there.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from headrace.api.media import Media

Address = IPv4Address | IPv6Address

_NAT64 = ip_network("64:ff9b::/96")
_LAST_32_BITS = 2**32 - 1


class AddressPolicy:
    """What `input.media` says about hosts and addresses."""

    def __init__(self, media: Media) -> None:
        self._hosts = media.allowed_hosts
        self._networks = tuple(ip_network(text, strict=False) for text in media.allowed_networks)

    def allows_host(self, host: str) -> bool:
        """Whether URLs may name this host; what address it has is another question."""
        name = host.lower().rstrip(".")
        return not self._hosts or any(_matches(name, pattern) for pattern in self._hosts)

    def allows_address(self, address: str) -> bool:
        """Whether a connection to this address may be made."""
        found = ip_address(address.partition("%")[0])
        return any(found in network for network in self._networks) or all(map(_is_public, _meanings(found)))


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
