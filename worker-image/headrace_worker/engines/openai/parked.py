"""What a worker that goes leaves for the next one: the endpoints that nobody got through to, to which it sends one probe first.

A pod begins with closed breakers. Of a batch that was put away because no endpoint answers, and that is let go again to see whether one
does, the first request is to be the probe.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Self

from pydantic import Field, ValidationError

from headrace.api.base import ApiModel
from headrace.api.worker import Env, WorkerConfig
from headrace_worker.stores import join, open_store
from headrace_worker.stores.base import NotFound, Store, StoreError

log = logging.getLogger(__name__)


class Open(ApiModel):
    """The endpoints whose breakers were not closed."""

    endpoints: tuple[str, ...] = Field(default=())
    """By name."""


class Parked:
    """The note in the output folder. Whoever has got through takes it away."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store, self._uri = store, join(folder, "_headrace", "endpoints-open.json")
        self._found = False

    @classmethod
    def of(cls, config: WorkerConfig, env: Mapping[str, str]) -> Self | None:
        """The note of a batch; None for who works on no shard."""
        works = env.get(Env.SHARD, "").isdecimal()
        return cls(open_store(config.output_uri), config.output_uri) if works else None

    def read(self) -> Collection[str]:
        """The names on the note. Without one, and when it cannot be read, there is nothing to beware of."""
        try:
            found = Open.model_validate_json(self._store.read(self._uri))
        except NotFound:
            return ()
        except (StoreError, OSError, ValidationError) as error:
            log.warning("which endpoints were behind open breakers cannot be read: %s", error)
            return ()
        self._found = True
        return found.endpoints

    def write(self, names: Collection[str]) -> None:
        """Leave these names; none of them: take the note away, if there was one."""
        try:
            if names:
                self._store.put(self._uri, Open(endpoints=tuple(names)).model_dump_json(by_alias=True).encode())
            elif self._found:
                self._store.delete(self._uri)
        except (StoreError, OSError) as error:
            log.warning("which endpoints are behind open breakers cannot be told: %s", error)
