"""Whose the output folder is: the first batch that writes its name into `_headrace/owner.json`, for good."""

from __future__ import annotations

import orjson
from pydantic import ValidationError

from headrace.api.worker import BatchIdentity
from headrace_worker.commit import same_batch
from headrace_worker.errors import JobFailed
from headrace_worker.stores import join
from headrace_worker.stores.base import AlreadyExists, NotFound, Store


def claim_output(store: Store, output_uri: str, batch: BatchIdentity) -> None:
    """Make the folder this batch's own.

    Raises `JobFailed`: `OutputInUse` when it is another's, `OutputNotWritable` when the store lets a second claim replace the
    first, for then nothing can be promised there.
    """
    data = orjson.dumps(batch.to_object(), option=orjson.OPT_APPEND_NEWLINE)
    try:
        for _ in range(2):
            store.put(_uri(output_uri), data, if_absent=True)
    except AlreadyExists:
        check_owner(store, output_uri, batch)
    else:
        raise JobFailed(
            "OutputNotWritable",
            f"{_uri(output_uri)} could be created twice: output.uri must be in a store that knows If-None-Match",
        )


def check_owner(store: Store, output_uri: str, batch: BatchIdentity) -> None:
    """Raises `JobFailed` (`OutputInUse`) when the folder is another batch's; one that is nobody's is fine."""
    owner = find_owner(store, output_uri)
    if owner is not None:
        same_batch(owner, batch, _uri(output_uri))


def find_owner(store: Store, output_uri: str) -> BatchIdentity | None:
    """The batch that a folder belongs to; None when it is nobody's. Raises `JobFailed` (`OutputInUse`) when its name cannot be read."""
    uri = _uri(output_uri)
    try:
        return BatchIdentity.model_validate_json(store.read(uri))
    except NotFound:
        return None
    except ValidationError as error:
        raise JobFailed(
            "OutputInUse", f"{uri} does not name a batch: output.uri must be a folder of its own"
        ) from error


def _uri(output_uri: str) -> str:
    return join(output_uri, "_headrace", "owner.json")
