"""One gateway for the tests of a module."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from gateway_rig import MOST_FILE_BYTES, Gateway, gateway


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that takes files of `MOST_FILE_BYTES`."""
    folder = tmp_path_factory.mktemp("gateway")
    with gateway(folder, uuid.uuid4().hex, "--max-file-bytes", str(MOST_FILE_BYTES)) as found:
        yield found
