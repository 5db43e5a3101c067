"""Answers that are there already: of an earlier batch, of an equal record, or of a cache; and how many a batch has taken."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from headrace.api.base import ApiModel, Count, Name, Rule
from headrace.api.common import exactly_one

SCHEMES = "file|claim|s3|gs|az"


class ResumeFrom(ApiModel):
    """An earlier batch whose results are kept."""

    rules: ClassVar[tuple[Rule, ...]] = (exactly_one("name", "uri"),)

    name: Name | None = None
    """An InferenceBatch of the same namespace, finished or not."""
    uri: Annotated[str, Field(max_length=4096, pattern=rf"^({SCHEMES})://.+")] | None = None
    """The output folder of one."""


class DedupScope(StrEnum):
    """Among which records an answer is shared."""

    NONE = "none"
    """Each record is asked, whatever was asked before."""
    INPUT = "input"
    """Equal records of one shard are asked once."""
    CACHE = "cache"
    """So are those of all batches with the same `cacheUri`."""


class Sampled(StrEnum):
    """Whether answers that are drawn at random are shared."""

    ASK = "Ask"
    SHARE = "Share"


class Dedup(ApiModel):
    """Equal records are asked once. Equal are those with the same body, parameters included, for the same model and engine."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="(self.scope == 'cache') == has(self.cacheUri)",
            message="cacheUri must be set when scope is cache, and only then",
            check=lambda it: (it.scope == DedupScope.CACHE) == (it.cache_uri is not None),
            field="cacheUri",
        ),
    )

    scope: DedupScope = DedupScope.NONE
    """Among which records: none, input or cache."""
    cache_uri: Annotated[str, Field(max_length=4096, pattern=rf"^({SCHEMES})://.+")] | None = None
    """The folder of the cache: one file an answer. Batches may use it at the same time."""
    sampled: Sampled = Sampled.ASK
    """By default a record with a temperature above 0 and no seed is asked each time; Share treats it like the others."""


class Reused(ApiModel):
    """Records that got an answer which was there already; they have used nothing."""

    resumed: Count = 0
    """Of the batch that `resumeFrom` names."""
    equal: Count = 0
    """Of an equal record of the same shard."""
    cached: Count = 0
    """Of the cache."""

    def __add__(self, other: Reused) -> Reused:
        return Reused(
            resumed=self.resumed + other.resumed, equal=self.equal + other.equal, cached=self.cached + other.cached
        )

    def at_least(self, other: Reused) -> Reused:
        """The larger of each."""
        return Reused(
            resumed=max(self.resumed, other.resumed),
            equal=max(self.equal, other.equal),
            cached=max(self.cached, other.cached),
        )
