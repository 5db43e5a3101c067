"""Equal records are asked once: the first of them is worked on, the others wait for its answer.

An answer is kept while there is room for it; a record that comes when it has gone is asked again. When the first of equal records
fails, the next of them is worked on: an error is never shared. With a cache, answers are looked for there as well, and put there.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import NamedTuple

import orjson

from headrace.api.base import JsonObject
from headrace.api.model import Task
from headrace.api.records import fingerprinter
from headrace.api.reuse import DedupScope, Sampled
from headrace.api.worker import WorkerConfig
from headrace_worker.answercache import AnswerCache
from headrace_worker.engines.base import Outcome, Work
from headrace_worker.ledger import CACHED, EQUAL

_MOST_BYTES = 64 * 1024 * 1024
"""Of answers that are kept, as JSON."""
_GENERATING = (Task.CHAT, Task.COMPLETION)


class Shared(NamedTuple):
    """A record that has its answer without being worked on."""

    work: Work
    body: JsonObject
    origin: bytes
    """Where from: EQUAL or CACHED."""
    about: JsonObject


class _Answer(NamedTuple):
    custom_id: str
    body: JsonObject
    size: int


class Sharing:
    """What equal records of a shard have in common."""

    def __init__(self, config: WorkerConfig, cache: AnswerCache | None, most_bytes: int = _MOST_BYTES) -> None:
        self._fingerprint, self._task = fingerprinter(config.model, config.engine), config.model.task
        self._any = config.dedup.sampled == Sampled.SHARE
        self._cache, self._most_bytes, self._bytes = cache, most_bytes, 0
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self._asked: dict[str, deque[Work]] = {}
        """Of each record that is worked on, those that wait for its answer."""
        self._keys: dict[int, str] = {}
        self._waiting = 0

    @classmethod
    def of(cls, config: WorkerConfig) -> Sharing | None:
        """As a batch is to have it; None when each record is asked."""
        scope, uri = config.dedup.scope, config.dedup.cache_uri
        if scope == DedupScope.NONE:
            return None
        return cls(config, AnswerCache(uri) if uri is not None else None)

    def __len__(self) -> int:
        """Records that wait for the answer of another."""
        return self._waiting

    def sift(self, taken: Sequence[Work]) -> tuple[list[Work], list[Shared]]:
        """Of records that are taken in, those that are to be worked on, and those that have their answer."""
        ask: list[Work] = []
        have: list[Shared] = []
        keys = [self._key(work) for work in taken]
        cached = self._look_up(keys)
        for work, key in zip(taken, keys, strict=True):
            if key is None:
                ask.append(work)
            elif (body := cached.get(key)) is not None:
                have.append(Shared(work, body, CACHED, {"cached": True}))
            elif (answer := self._answers.get(key)) is not None:
                self._answers.move_to_end(key)
                have.append(_equal(work, answer.custom_id, answer.body))
            elif (waiting := self._asked.get(key)) is not None:
                waiting.append(work)
                self._waiting += 1
            else:
                self._lead(key, work)
                ask.append(work)
        return ask, have

    def settle(self, outcome: Outcome) -> tuple[list[Work], list[Shared]]:
        """A record is finished: what is to be worked on because it has failed, and those that have its answer now."""
        key = self._keys.pop(outcome.work.position, None)
        if key is None:
            return [], []
        waiting = self._asked.pop(key)
        if outcome.error is not None:
            if not waiting:
                return [], []
            following = waiting.popleft()
            self._waiting -= 1
            self._asked[key], self._keys[following.position] = waiting, key
            return [following], []
        self._waiting -= len(waiting)
        body, custom_id = outcome.body or {}, outcome.work.request.custom_id
        self._keep(key, custom_id, body)
        return [], [_equal(work, custom_id, body) for work in waiting]

    def close(self) -> None:
        """Let the cache have what it has not got yet. Raises what its store does."""
        if self._cache is not None:
            self._cache.close()

    def _key(self, work: Work) -> str | None:
        """What equal records have in common; None for a record that is asked for itself."""
        body = work.request.body
        drawn = self._task in _GENERATING and body.get("temperature", 1) != 0 and body.get("seed") is None
        return None if drawn and not self._any else self._fingerprint(body)

    def _look_up(self, keys: Sequence[str | None]) -> dict[str, JsonObject]:
        """What the cache has of them."""
        if self._cache is None:
            return {}
        known = self._answers.keys() | self._asked.keys()
        return self._cache.find({key for key in keys if key is not None} - known)

    def _lead(self, key: str, work: Work) -> None:
        self._asked[key], self._keys[work.position] = deque(), key

    def _keep(self, key: str, custom_id: str, body: JsonObject) -> None:
        raw = orjson.dumps(body)
        if self._cache is not None:
            self._cache.put(key, raw)
        self._answers[key] = _Answer(custom_id, body, len(raw))
        self._bytes += len(raw)
        while self._bytes > self._most_bytes:
            _, gone = self._answers.popitem(last=False)
            self._bytes -= gone.size


def _equal(work: Work, custom_id: str, body: JsonObject) -> Shared:
    return Shared(work, body, EQUAL, {"equal_to": custom_id})
