"""A sequence: the prompt of one record and what has been generated after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from headrace_worker.engines.base import Work
from headrace_worker.engines.transformers.logprobs import TokenLogprobs
from headrace_worker.engines.transformers.parameters import Sampling


@dataclass(frozen=True, slots=True)
class Prompt:
    """What `prepare` makes of a record that a model answers by generating."""

    ids: list[int]
    sampling: Sampling


@dataclass(slots=True, eq=False)
class Sequence:
    """One record while it waits or runs."""

    work: Work
    prompt: list[int]
    sampling: Sampling
    tokens: list[int]
    """Prompt and answer so far."""
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    """Of the tokens generated so far, where they are wanted."""
    first_token: float | None = None
    """When the first token of the answer was there, by the monotonic clock."""

    @classmethod
    def of(cls, work: Work) -> Self:
        """The sequence of a prepared record."""
        prepared: Prompt = work.prepared
        return cls(work, prepared.ids, prepared.sampling, list(prepared.ids))

    @property
    def answer(self) -> list[int]:
        """The tokens generated so far."""
        return self.tokens[len(self.prompt) :]

    @property
    def generated(self) -> int:
        """Their number."""
        return len(self.tokens) - len(self.prompt)

    @property
    def wants_logits(self) -> bool:
        """Whether more must be known of its next token than which is the likeliest."""
        return self.sampling.temperature > 0 or self.sampling.logprobs is not None
