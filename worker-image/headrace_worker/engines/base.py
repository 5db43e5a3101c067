"""What an engine is: it takes prepared records as long as it has room, and hands back outcomes as they finish.

`prepare` is cheap and needs no weights, so that a record that cannot be answered costs no model load. `submit` and `step` fit
every way of batching: a static engine runs a whole batch in one step, a continuous one finishes a few sequences in each, an
engine of remote endpoints returns whatever answers have come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

from headrace.api.base import JsonObject
from headrace.api.endpointstatus import BreakerState, EndpointReport
from headrace.api.records import RecordError, Request


class Work(NamedTuple):
    """One record on its way through an engine. A million of them are made in half a minute, so it is a tuple."""

    position: int
    """Place of the record in its shard, from 0."""
    request: Request
    """Its body has the batch's parameters merged in."""
    tokens: int
    """Length of the prompt in tokens, exact where the engine tokenises, else estimated."""
    expected_tokens: int = 0
    """The most that may be generated."""
    prepared: Any = None
    """What the engine made of it in `prepare` (token ids); no one else looks inside."""
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one record: a response body, or an error."""

    work: Work
    body: JsonObject | None = None
    """The response in the form of the task's OpenAI endpoint."""
    error: RecordError | None = None
    retriable: bool = False
    """Whether trying again might help."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_token: float | None = None
    """When its first token was there, in seconds of the monotonic clock; None where no tokens are generated."""
    about: JsonObject | None = None
    """What else the output line says about the answer: which endpoint has given it."""


@dataclass(slots=True)
class EndpointStats:
    """What has been sent to one endpoint."""

    sent: int = 0
    in_flight: int = 0
    limit: int = 0
    """Requests in flight that it is thought to bear."""
    state: BreakerState = BreakerState.CLOSED
    """What is sent to it."""
    reason: str | None = None
    """Why it is not asked any more, until somebody mends it."""
    answered: int = 0
    """Requests that were answered, be it that a record is refused."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Requests by what came of them, in enumerated words."""

    @property
    def open(self) -> bool:
        """Whether nothing is sent to it for now, but for a probe."""
        return self.state != BreakerState.CLOSED

    def report(self, name: str) -> EndpointReport:
        """What is said of it."""
        return EndpointReport(
            name=name,
            state=self.state,
            sent=self.sent,
            answered=self.answered,
            in_flight=self.in_flight,
            limit=self.limit,
            reason=self.reason,
        )


@dataclass(slots=True)
class EngineStats:
    """How full the batches were."""

    batches: int = 0
    """Batches run; for a continuous engine, steps."""
    batched_records: int = 0
    """Sum of their sizes in records."""
    batched_tokens: int = 0
    """Sum of their sizes in tokens, as `maxBatchTokens` counts them."""
    compute_seconds: float = 0.0
    """Of an engine that generates: time in forward passes, in drawing tokens and in the KV cache. The rest is bookkeeping."""
    max_num_seqs: int = 0
    """Records that it runs at once, as the spec says or as it has found; 0 before `load`, and where it is just what the spec says."""
    max_num_batched_tokens: int = 0
    """Tokens of one step, likewise."""
    stalled: bool = False
    """Whether the last step could work on nothing, and no record was to blame for that: nobody could be asked."""
    endpoints: Mapping[str, EndpointStats] = field(default_factory=dict)
    """Of an engine that asks endpoints, by their names."""


class Continuation(NamedTuple):
    """A text that might follow a prompt."""

    body: JsonObject
    """The request whose answer it might be, in the form of the task's OpenAI endpoint."""
    text: str


class Likelihood(Protocol):
    """A language model that is asked how likely texts are, and generates none."""

    def load(self) -> None:
        """Load the weights; called once, before the first `mean`. Raises `JobFailed` when there is no such model."""

    def mean(self, texts: Sequence[Continuation]) -> list[float | RecordError]:
        """The mean log-probability of a token of each text, in nats; an error for one that the model cannot read.

        The same texts in the same order give the same numbers.
        """

    def close(self) -> None:
        """Give back what the model holds."""


class Engine(Protocol):
    """A running model."""

    stats: EngineStats

    def prepare(self, position: int, request: Request) -> Work:
        """Check and tokenise one record. Raises `RecordError` (context_length_exceeded, invalid_request)."""

    def load(self) -> None:
        """Load the weights; called once, before the first `submit`. Raises `JobFailed` when there is no such model."""

    @property
    def room(self) -> int:
        """How many more records it would take now; may be asked before `load`."""

    @property
    def running(self) -> int:
        """Records submitted and not yet handed back."""

    def submit(self, batch: Sequence[Work]) -> None:
        """Take records, at most `room` of them."""

    def step(self) -> list[Outcome]:
        """Work for a while (a batch, a token, at most about a second) and hand back what is finished; maybe nothing."""

    def give_up(self, positions: Collection[int]) -> list[Work]:
        """Let go of the records at these positions that are here, finished or not; they are not handed back by `step` any more."""

    def close(self) -> None:
        """Give back what the engine holds."""


class Unfinished(NamedTuple):
    """An answer that is being written."""

    work: Work
    text: str
    """All of it so far."""
    tokens: int


@runtime_checkable
class Writing(Protocol):
    """An engine that can say how far its answers have come."""

    def unfinished(self) -> list[Unfinished]:
        """Those of which there is something already."""
