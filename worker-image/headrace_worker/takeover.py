"""Taking over a shard: read what the older attempts have left, and say in the head of a new journal how much of it counts."""

from __future__ import annotations

from typing import Annotated, Literal

import orjson
from pydantic import Field, ValidationError

from headrace.api.base import ApiModel, Count
from headrace.api.worker import BatchIdentity, ManifestHeader, Shard
from headrace_worker.commit import same_batch
from headrace_worker.errors import JobFailed, ShardFailed
from headrace_worker.layout import ShardFolder
from headrace_worker.ledger import HEAD, Ledger, Place, seal, unseal
from headrace_worker.revisions import Revision
from headrace_worker.stores.base import Store

MAX_BYTES = 2**53
"""More than any journal has."""


class Adopted(ApiModel):
    """How much of an older journal counts."""

    attempt: Annotated[int, Field(ge=1)]
    bytes: Annotated[int, Field(ge=0)]
    round: Count = 0
    """In which retry of the batch it was written."""


class JournalHead(ApiModel):
    """The first line of a journal."""

    version: Literal[1] = 1
    batch: BatchIdentity
    shard: Annotated[int, Field(ge=0)]
    sha256: str
    """Of the shard's input: journals of another cut of the input are never adopted."""
    attempt: Annotated[int, Field(ge=1)]
    round: Count = 0
    """In which retry of the batch; errors of earlier ones do not count."""
    adopted: tuple[Adopted, ...] = ()
    """Oldest first; journals that are not named here do not count."""


def head_line(head: JournalHead) -> bytes:
    """The first line of a journal."""
    return seal(b"%b %b\n" % (HEAD, orjson.dumps(head.to_object())))


def take_over(
    store: Store, revision: Revision, shard: Shard, header: ManifestHeader, round_: int
) -> tuple[JournalHead, Ledger]:
    """Read what there is and create the journal of the next attempt, in this retry of the batch."""
    folder, newest, ledger = revision.folder, revision.newest, Ledger(shard.records)
    if revision.base is not None:
        revision.base.begin(ledger, shard)
    adopted: list[Adopted] = []
    if newest:
        head = _read_head(store, folder.journal(newest), shard, header)
        for older in head.adopted:
            _replay(store, folder, ledger, older, errors=older.round == round_)
            adopted.append(older)
        last = Adopted(attempt=newest, bytes=MAX_BYTES, round=head.round)
        whole = _replay(store, folder, ledger, last, errors=head.round == round_)
        adopted.append(last.model_copy(update={"bytes": whole}))
    head = JournalHead(
        batch=header.batch,
        shard=shard.index,
        sha256=shard.sha256,
        attempt=newest + 1,
        round=round_,
        adopted=tuple(adopted),
    )
    store.put(folder.journal(head.attempt), head_line(head), if_absent=True)
    return head, ledger


def _read_head(store: Store, uri: str, shard: Shard, header: ManifestHeader) -> JournalHead:
    with store.open(uri) as journal:
        body = unseal(journal.readline())
    try:
        head = JournalHead.model_validate_json(body.removeprefix(HEAD) if body else b"")
    except ValidationError as error:
        raise ShardFailed("JournalDamaged", f"the first line of {uri} is not the head of a journal") from error
    same_batch(head.batch, header.batch, uri)
    if (head.shard, head.sha256) != (shard.index, shard.sha256):
        raise JobFailed(
            "PlanChanged", f"{uri} was written for another cut of the input: output.uri must be an empty folder"
        )
    return head


def _replay(store: Store, folder: ShardFolder, ledger: Ledger, counts: Adopted, *, errors: bool) -> int:
    """Take in as much of a journal as counts; returns how many bytes its whole lines have."""
    offset = 0
    with store.read_log(folder.journal(counts.attempt)) as journal:
        for line in journal:
            end = offset + len(line)
            if not line.endswith(b"\n") or end > counts.bytes:
                break
            ledger.replay(line, Place(counts.attempt, offset), errors=errors)
            offset = end
    return offset
