"""Where the pods of a batch tell each other about its endpoints: a small file of each in the output folder, which all of them read.

No pod needs an address, a port or the Kubernetes API for that. What a killed pod has left behind does not change any more, and is soon
taken for nothing; the next pod of the same index writes over it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import ValidationError

from headrace.api.worker import Env, WorkerConfig
from headrace_worker.engines.openai.sharing import Notice, Sight
from headrace_worker.stores import join, open_store
from headrace_worker.stores.base import NotFound, Store, StoreError

LOOK_SECONDS = 2.0
"""How often a pod tells and looks;"""
BUCKET_LOOK_SECONDS = 10.0
"""in an object store, where each request costs money;"""
SECONDS_A_POD = 0.25
"""and when there are many pods less often: so long for each."""
SILENT_LOOKS = 3
"""A pod that has told nothing new for so many looks is not there any more."""

log = logging.getLogger(__name__)

Peers = Mapping[str, Mapping[str, Sight]]
"""What the other pods know, by their names and the names of the endpoints."""


class _Heard(NamedTuple):
    """Of one pod."""

    notice: Notice
    silent: int
    """Looks since it has last told anything new."""


class Board:
    """The files of one batch, one of which is this pod's. One look at a time is under way, in a thread of its own."""

    def __init__(self, store: Store, folder: str, name: str, look_seconds: float = LOOK_SECONDS) -> None:
        """`name`: of this pod, and different from those of the others."""
        self.name = name
        self._store, self._folder, self._look_seconds = store, folder, look_seconds
        self._beat, self._due = 0, float("-inf")
        self._heard: dict[str, _Heard] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="endpoints")
        self._look: Future[Peers] | None = None
        self._is_lost = False

    @classmethod
    def of(cls, config: WorkerConfig, env: Mapping[str, str]) -> Self | None:
        """The board of a batch; None for one that has no more than one pod."""
        shard = env.get(Env.SHARD, "")
        if config.shards == 1 or not shard.isdecimal():
            return None
        is_local = urlsplit(config.output_uri).scheme == "file"
        folder = join(config.output_uri, "_headrace", "endpoints")
        seconds = LOOK_SECONDS if is_local else BUCKET_LOOK_SECONDS
        return cls(open_store(config.output_uri), folder, f"{int(shard):05}", seconds)

    def begin(self) -> Peers:
        """What is there already: to be heard before anything is asked."""
        return self._peers()

    def look(self, tell: Callable[[], Mapping[str, Sight]], now: float) -> Peers | None:
        """What the others have told, if that is new. When it is time this pod tells what it knows, and looks again."""
        found = None
        if self._look is not None and self._look.done():
            found, self._look = self._look.result(), None
        if self._look is None and now >= self._due:
            self._beat += 1
            self._due = now + max(self._look_seconds, SECONDS_A_POD * len(self._heard))
            self._look = self._thread.submit(self._exchange, Notice(beat=self._beat, endpoints=dict(tell())))
        return found

    def wait(self) -> None:
        """Until the look that is under way has ended, if one is."""
        if self._look is not None:
            wait([self._look])

    def close(self) -> None:
        """Take leave, so that nobody reckons with this pod any more."""
        self._thread.shutdown()
        told, self._beat = self._beat, 0
        if told and not self._is_lost:
            try:
                self._store.delete(self._own)
            except (StoreError, OSError) as error:
                log.warning("what this pod has told about endpoints stays behind: %s", error)

    @property
    def _own(self) -> str:
        return join(self._folder, f"{self.name}.json")

    def _exchange(self, notice: Notice) -> Peers:
        try:
            self._store.put(self._own, notice.model_dump_json(by_alias=True, exclude_defaults=True).encode())
        except (StoreError, OSError) as error:
            self._lost(error)
        return self._peers()

    def _peers(self) -> Peers:
        """Those that are there. When the board cannot be read, those of the last time: better than to reckon with nobody."""
        try:
            told = dict(self._read())
        except (StoreError, OSError) as error:
            self._lost(error)
        else:
            self._is_lost = False
            self._heard = {name: _heard(self._heard.get(name), notice) for name, notice in told.items()}
        return {name: it.notice.endpoints for name, it in self._heard.items() if it.silent < SILENT_LOOKS}

    def _read(self) -> Iterator[tuple[str, Notice]]:
        for found in self._store.list(self._folder):
            name = found.uri.rpartition("/")[2].removesuffix(".json")
            if name == self.name:
                continue
            try:
                yield name, Notice.model_validate_json(self._store.read(found.uri))
            except NotFound:  # it has just taken leave
                continue
            except ValidationError:
                log.warning("%s is not what a worker tells about endpoints: it is left out", found.uri)

    def _lost(self, error: Exception) -> None:
        """Say once that nothing is heard; each pod then goes on with what it knows."""
        if not self._is_lost:
            log.warning("the other workers are not heard: %s", error)
        self._is_lost = True


def _heard(before: _Heard | None, notice: Notice) -> _Heard:
    is_new = before is None or before.notice.beat != notice.beat
    return _Heard(notice, 0 if before is None or is_new else before.silent + 1)
