"""One gateway for the tests of a module."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from gateway_rig import Gateway, gateway


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that takes files of 300 MiB."""
    folder = tmp_path_factory.mktemp("gateway")
    with gateway(folder, uuid.uuid4().hex, "--max-file-bytes", str(300 * 2**20)) as found:
        yield found
