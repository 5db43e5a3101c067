"""Gives the tests of this folder a real cluster; another folder's conftest may import the same names."""

from .fixtures import cluster, kubectl, namespace, node, pytest_runtest_call, pytest_runtest_setup, say
from .node_site import installed, site

__all__ = [
    "cluster",
    "installed",
    "kubectl",
    "namespace",
    "node",
    "pytest_runtest_call",
    "pytest_runtest_setup",
    "say",
    "site",
]
