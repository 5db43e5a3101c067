"""Which media (images and sounds) records may name by a URL, and how much of it is fetched.

A URL in a record was written by somebody else, and is followed from inside a cluster. So a worker goes to public addresses only, unless
it is told otherwise, and takes no more bytes and no more time than it is told.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Any, ClassVar

from pydantic import Field

from headrace.api.base import ApiModel, Rule

Host = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        description="A host in lower case; `*.example.org` stands for every name below example.org.",
    ),
]
Network = Annotated[
    str,
    Field(
        max_length=43,
        pattern=r"^[0-9A-Fa-f.:]+/(0|[1-9][0-9]{0,2})$",
        description="A range of addresses, such as 10.20.0.0/16.",
    ),
]
Place = Annotated[
    str,
    Field(
        max_length=1024,
        pattern=r"^(s3|gs|az|package)://.+/$",
        description="A folder in an object store or in an installed Python package, with a slash at its end.",
    ),
]

_ATOMIC = {"x-kubernetes-list-type": "atomic"}


def _is_network(text: str) -> bool:
    try:
        network: Any = ip_network(text, strict=False)
    except ValueError:
        return False
    return getattr(network.network_address, "ipv4_mapped", None) is None


class Media(ApiModel):
    """Where media may be fetched from, and how much."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.allowedNetworks) || self.allowedNetworks.all(network, isCIDR(network))",
            message="allowedNetworks must be ranges of addresses, such as 10.20.0.0/16",
            check=lambda it: all(map(_is_network, it.allowed_networks)),
            field="allowedNetworks",
        ),
    )

    allowed_hosts: Annotated[tuple[Host, ...], Field(max_length=64, json_schema_extra=_ATOMIC)] = ()
    """Hosts that http:// and https:// URLs may name. By default all."""
    allowed_networks: Annotated[tuple[Network, ...], Field(max_length=64, json_schema_extra=_ATOMIC)] = ()
    """Addresses that are not public and may be reached all the same. By default none: whatever name a host has, a worker connects to no
    private, loopback or link-local address."""
    allowed_uris: Annotated[tuple[Place, ...], Field(max_length=64, json_schema_extra=_ATOMIC)] = ()
    """Folders in object stores and Python packages that URLs may point into, such as `s3://photos/2026/`. What lies below the folder of
    the input needs no leave: its URL is a path relative to it."""
    max_bytes: Annotated[int, Field(ge=1, le=2**30)] = 20 * 1024 * 1024
    """The most that one image or sound may have."""
    timeout_seconds: Annotated[int, Field(ge=1, le=600)] = 30
    """How long the fetching of one may take, redirects included."""
