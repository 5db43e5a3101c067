"""Taking over the results of an earlier batch: each record that asks what a record of the same `custom_id` asked then keeps its answer.

A result says what was asked (`fingerprint`), so nothing of the earlier input is needed. What is taken over is journaled like
any result, with where it is from, and it has cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

import orjson

from headrace.api.records import Request, fingerprinter
from headrace.api.results import Wanted
from headrace.api.worker import BatchIdentity, Shard, WorkerConfig
from headrace_worker.errors import JobFailed
from headrace_worker.failures import input_failures
from headrace_worker.layout import record_id
from headrace_worker.ledger import RESUMED, Entry, Ledger
from headrace_worker.owner import find_owner
from headrace_worker.results import records
from headrace_worker.revisions import committed_folders
from headrace_worker.stores import open_store

_LINES_AT_ONCE = 1024


def check_earlier(config: WorkerConfig) -> BatchIdentity | None:
    """Which batch it is that is resumed; None when there is none to be. Raises `JobFailed` when it has left nothing."""
    uri = config.resume_from
    if uri is None:
        return None
    with input_failures():
        owner = find_owner(open_store(uri), uri)
    if owner is None:
        raise JobFailed("ResumeFromMissing", f"there is no batch in {uri}: resumeFrom must name the output of one")
    if owner == config.batch:
        raise JobFailed("ResumeFromItself", f"{uri} is the output of this batch: resumeFrom must name another one")
    return owner


def resumed(
    config: WorkerConfig, shard: Shard, asked: Iterator[tuple[int, Request]], ledger: Ledger
) -> Iterator[list[Entry]]:
    """The records of a shard that have their answer already, as their lines are found: now and then some, or none.

    `asked` are the records of the shard. All of the earlier results are read, once. Raises `JobFailed`.
    """
    owner, uri = check_earlier(config), config.resume_from
    if owner is None or uri is None or not ledger.pending:
        return
    wanted, origin = _wanted(config, asked, ledger), f"{owner.namespace}/{owner.name}@{owner.uid}"
    with input_failures():
        store, found = open_store(uri), list[Entry]()
        folders = committed_folders(store, uri)
        for number, line in enumerate(records(store, uri, folders.values(), Wanted.SUCCEEDED), 1):
            entry = _entry(line, wanted, shard, origin)
            if entry is not None:
                found.append(entry)
            if not number % _LINES_AT_ONCE:
                yield found
                found = []
        yield found


def _wanted(config: WorkerConfig, asked: Iterator[tuple[int, Request]], ledger: Ledger) -> dict[int, int]:
    """The positions of the records that are to be done, by what they are called and ask."""
    fingerprint, parameters = fingerprinter(config.model, config.engine), config.parameters
    return {
        _key(request.custom_id, fingerprint({**parameters, **request.body})): position
        for position, request in asked
        if not ledger.is_finished(position)
    }


def _key(custom_id: str, fingerprint: str) -> int:
    return int.from_bytes(blake2b(f"{fingerprint} {custom_id}".encode(), digest_size=16).digest())


def _entry(line: bytes, wanted: dict[int, int], shard: Shard, origin: str) -> Entry | None:
    row = orjson.loads(line)
    position = wanted.pop(_key(row["custom_id"], row.get("fingerprint", "")), None)
    if position is None:
        return None
    row |= {"id": record_id(shard, position), "headrace": {"resumed_from": origin, **row.get("headrace", {})}}
    row["response"]["request_id"] = row["id"]
    return Entry(position, orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE), reused=RESUMED)
