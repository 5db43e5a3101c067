"""Taking over a shard: read what the older attempts have left, and say in the head of a new journal how much of it counts."""

from __future__ import annotations

from typing import Annotated, Literal

import orjson
from pydantic import Field, ValidationError

from headrace.api.base import ApiModel
from headrace.api.worker import BatchIdentity, ManifestHeader, Shard
from headrace_worker.commit import same_batch
from headrace_worker.errors import JobFailed, ShardFailed
from headrace_worker.layout import ShardFolder, journal_attempt
from headrace_worker.ledger import HEAD, Ledger, Place, seal, unseal
from headrace_worker.stores.base import Store


class Adopted(ApiModel):
    """How much of an older journal counts."""

    attempt: Annotated[int, Field(ge=1)]
    bytes: Annotated[int, Field(ge=0)]


class JournalHead(ApiModel):
    """The first line of a journal."""

    version: Literal[1] = 1
    batch: BatchIdentity
    shard: Annotated[int, Field(ge=0)]
    sha256: str
    """Of the shard's input: journals of another cut of the input are never adopted."""
    attempt: Annotated[int, Field(ge=1)]
    adopted: tuple[Adopted, ...] = ()
    """Oldest first; journals that are not named here do not count."""


def newest_attempt(store: Store, folder: ShardFolder) -> int:
    """The newest attempt at a shard that has a journal; 0 when there is none."""
    attempts = (journal_attempt(found.uri) for found in store.list(folder.private))
    return max((attempt for attempt in attempts if attempt is not None), default=0)


def head_line(head: JournalHead) -> bytes:
    """The first line of a journal."""
    return seal(b"%b %b\n" % (HEAD, orjson.dumps(head.to_object())))


def take_over(
    store: Store, folder: ShardFolder, newest: int, shard: Shard, header: ManifestHeader
) -> tuple[JournalHead, Ledger]:
    """Read what there is and create the journal of the next attempt."""
    ledger = Ledger(shard.records)
    adopted: list[Adopted] = []
    if newest:
        for older in _read_head(store, folder.journal(newest), shard, header).adopted:
            _replay(store, folder.journal(older.attempt), ledger, older.attempt, older.bytes)
            adopted.append(older)
        whole = _replay(store, folder.journal(newest), ledger, newest)
        adopted.append(Adopted(attempt=newest, bytes=whole))
    head = JournalHead(
        batch=header.batch, shard=shard.index, sha256=shard.sha256, attempt=newest + 1, adopted=tuple(adopted)
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


def _replay(store: Store, uri: str, ledger: Ledger, attempt: int, limit: int | None = None) -> int:
    """Take in a journal up to `limit` bytes; returns how many bytes its whole lines have."""
    offset = 0
    with store.read_log(uri) as journal:
        for line in journal:
            end = offset + len(line)
            if not line.endswith(b"\n") or (limit is not None and end > limit):
                break
            ledger.replay(line, Place(attempt, offset))
            offset = end
    return offset
