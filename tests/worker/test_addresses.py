"""Addresses that answer from the node itself: link-local ones and those of metadata services."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.addresses import is_of_the_node

OF_THE_NODE = (
    "169.254.169.254", "169.254.170.2", "169.254.0.1", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "::ffff:168.63.129.16",
)  # fmt: skip
OTHERS = ("127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "fd00::1", "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946")


@pytest.mark.parametrize("address", OF_THE_NODE)
def test_is_of_the_node_where_clouds_answer(address: str) -> None:
    assert is_of_the_node(address)


@pytest.mark.parametrize("address", OTHERS)
def test_is_of_the_node_not_where_servers_of_ones_own_are(address: str) -> None:
    assert not is_of_the_node(address)


@given(st.ip_addresses(v=4))
def test_is_of_the_node_says_the_same_of_an_ipv4_address_in_ipv6(address: object) -> None:
    plain = is_of_the_node(str(address))
    assert is_of_the_node(f"::ffff:{address}") == plain
    assert is_of_the_node(f"64:ff9b::{address}") == plain
