"""Which hosts and addresses a worker may go to for media."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.media import Media
from headrace_worker.media.addresses import AddressPolicy

PUBLIC = ("93.184.216.34", "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:8.8.8.8", "64:ff9b::808:808")
NOT_PUBLIC = (
    "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
    "255.255.255.255", "224.0.0.1", "240.0.0.1", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fd00::1",
    "fc00::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a00:1",
    "2002:7f00:1::1", "2002:a00:1::1", "::7f00:1", "64:ff9b:1::7f00:1",
)  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_allows_address_that_is_public(address: str) -> None:
    assert AddressPolicy(Media()).allows_address(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_allows_address_that_is_not_public_never_by_default(address: str) -> None:
    assert not AddressPolicy(Media()).allows_address(address)


def test_allows_address_of_a_network_that_is_named() -> None:
    policy = AddressPolicy(Media(allowed_networks=("10.20.0.0/16", "fd12::/16")))
    assert policy.allows_address("10.20.255.1")
    assert policy.allows_address("fd12::5")
    assert not policy.allows_address("10.21.0.1")
    assert not policy.allows_address("::ffff:10.21.0.1")
    assert policy.allows_address("8.8.8.8"), "public addresses stay allowed: a list of hosts narrows those"


@given(st.ip_addresses(v=4))
def test_allows_address_says_the_same_of_an_ipv4_address_in_ipv6(address: object) -> None:
    policy = AddressPolicy(Media())
    plain = policy.allows_address(str(address))
    assert policy.allows_address(f"::ffff:{address}") == plain
    assert policy.allows_address(f"64:ff9b::{address}") == plain


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("media.example.org", True),
        ("MEDIA.example.org.", True),
        ("a.b.cdn.example", True),
        ("cdn.example", False),
        ("evilcdn.example", False),
        ("media.example.org.evil.example", False),
        ("example.org", False),
        ("127.0.0.1", False),
    ],
)
def test_allows_host_that_the_list_names(host: str, allowed: bool) -> None:
    policy = AddressPolicy(Media(allowed_hosts=("media.example.org", "*.cdn.example")))
    assert policy.allows_host(host) is allowed


def test_allows_host_every_one_without_a_list() -> None:
    assert AddressPolicy(Media()).allows_host("anything.example")
