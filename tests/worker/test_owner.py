"""Whose an output folder is, in each kind of store."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace_worker.errors import JobFailed
from headrace_worker.owner import check_owner, claim_output
from headrace_worker.stores import open_store
from headrace_worker.stores.local import LocalStore
from worker_rig import IDENTITY

ANOTHER = IDENTITY.model_copy(update={"uid": "uid-of-a-namesake"})


@pytest.fixture(params=["files", "objects"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of a folder that is nobody's."""
    folder: str = tmp_path.as_uri() if request.param == "files" else request.getfixturevalue("s3").folder()
    return folder


def test_claim_output_once_and_again(output: str) -> None:
    store = open_store(output)
    check_owner(store, output, IDENTITY)
    for _ in range(2):
        claim_output(store, output, IDENTITY)
        check_owner(store, output, IDENTITY)


def test_claim_output_of_another_is_refused(output: str) -> None:
    store = open_store(output)
    claim_output(store, output, IDENTITY)
    for ask in (claim_output, check_owner):
        with pytest.raises(JobFailed, match="belongs to the batch default/reviews") as caught:
            ask(store, output, ANOTHER)
        assert caught.value.failure.reason == "OutputInUse"


class Careless(LocalStore):
    """A store that does not know `if_absent`, as some that speak S3 do not."""

    def put(self, uri: str, data: bytes, *, if_absent: bool = False) -> None:  # noqa: ARG002 - that is the point
        super().put(uri, data)


def test_claim_output_in_a_store_that_keeps_no_promise_is_refused(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(JobFailed, match=r"could be created twice: .* must be in a store that knows If-None-Match"):
            claim_output(Careless(), tmp_path.as_uri(), IDENTITY)
