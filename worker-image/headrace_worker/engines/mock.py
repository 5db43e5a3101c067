"""The engine without a model: answers, delays, errors and crashes that are the same in every run of a record.

It is for tests, for trying a manifest, and for measuring everything around an engine. An answer names its record and repeats the
beginning of its prompt, so that a test can see that the two belong together. A token is taken to be four characters, rounded up.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import orjson

from headrace.api.base import JsonObject
from headrace.api.engines import MockEngine
from headrace.api.model import Task
from headrace.api.records import CHARACTERS_PER_TOKEN, ErrorCode, RecordError, Request, estimate_prompt_tokens
from headrace.api.worker import WorkerConfig
from headrace_worker.engines import RequestChecker
from headrace_worker.engines.base import Continuation, EngineStats, Outcome, Unfinished, Work
from headrace_worker.errors import JobFailed

EXCERPT_CHARACTERS = 64
"""So much of the prompt is repeated in an answer."""
_LONGEST_SLEEP_SECONDS = 0.25
_EMBEDDING_DIMENSIONS = 8


def create(config: WorkerConfig, created: int) -> Mock:
    """The mock engine of a batch. Raises `JobFailed` for a task that it cannot answer."""
    return Mock(config, created)


def request_checker(config: WorkerConfig) -> RequestChecker:
    """Checks requests as the engine itself does."""
    engine = Mock(config, created=0)
    return RequestChecker(config.model.context_tokens, lambda request: engine.prepare(0, request).tokens)


def likelihood(config: WorkerConfig) -> MockLikelihood:
    """Finds texts likely or not, by their hashes."""
    return MockLikelihood((config.engine.mock or MockEngine()).seed)


class MockLikelihood:
    """A number from -8 to 0 for each text, the same whenever it is asked about."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def load(self) -> None:
        """There is nothing to load."""

    def mean(self, texts: Sequence[Continuation]) -> list[float | RecordError]:
        """What stands for the mean log-probability of a token."""
        return [-_fraction(f"{self._seed}/{orjson.dumps(body).decode()}/{text}") * 8 for body, text in texts]

    def close(self) -> None:
        """There is nothing to give back."""


def _fraction(text: str) -> float:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) / 2**32


class Mock:
    """Answers whole batches, one at a time."""

    def __init__(self, config: WorkerConfig, created: int, clock: Callable[[], float] = time.monotonic) -> None:
        if config.model.task not in _ANSWERS:
            offered = ", ".join(_ANSWERS)
            raise JobFailed(
                "TaskNotSupported", f"model.task must be one of {offered} for the engine mock, not {config.model.task}"
            )
        self.stats = EngineStats()
        self._settings = config.engine.mock or MockEngine()
        self._model, self._task, self._created = config.model, config.model.task, created
        self._answer = _ANSWERS[self._task]
        self._size = config.batching.size
        self._clock = clock
        self._batch: list[Work] = []
        self._ready_at = 0.0

    def prepare(self, position: int, request: Request) -> Work:
        """Check one record and estimate its tokens."""
        limit = _token_limit(request.body)
        tokens = estimate_prompt_tokens(request.body)
        context = self._model.context_tokens
        if context is not None and tokens + (limit or 0) > context:
            raise RecordError(
                ErrorCode.CONTEXT_LENGTH_EXCEEDED,
                f"the prompt has {tokens} tokens and max_tokens is {limit or 0}: "
                f"together they must be at most {context}, the model's context",
            )
        return Work(position, request, tokens, limit or 0)

    def load(self) -> None:
        """There is nothing to load."""

    @property
    def room(self) -> int:
        """A whole batch, or none while one runs."""
        return 0 if self._batch else self._size

    @property
    def running(self) -> int:
        """Records of the batch that runs."""
        return len(self._batch)

    def submit(self, batch: Sequence[Work]) -> None:
        """Begin a batch."""
        self._batch = list(batch)
        self._ready_at = self._clock() + self._settings.latency_milliseconds / 1000
        self.stats.batches += 1
        self.stats.batched_records += len(batch)
        self.stats.batched_tokens += sum(work.tokens for work in batch)

    def step(self) -> list[Outcome]:
        """Wait a moment; hand back the whole batch once its time is over."""
        self._perhaps_crash()
        wait = self._ready_at - self._clock()
        if wait > 0:
            time.sleep(min(wait, _LONGEST_SLEEP_SECONDS))
        if not self._batch or self._clock() < self._ready_at:
            return []
        batch, self._batch = self._batch, []
        return [self._outcome(work) for work in batch]

    def unfinished(self) -> list[Unfinished]:
        """As much of each answer as its time is over."""
        if self._task == Task.EMBEDDING or not self._settings.latency_milliseconds:
            return []
        done = max(0.0, min(1.0, 1 - (self._ready_at - self._clock()) * 1000 / self._settings.latency_milliseconds))
        found = []
        for work in self._batch:
            text, _, tokens = _generated(work, _prompt(self._task, work))
            so_far = int(done * tokens)
            found.append(Unfinished(work, text[: so_far * CHARACTERS_PER_TOKEN], so_far))
        return [one for one in found if one.tokens]

    def give_up(self, positions: Collection[int]) -> list[Work]:
        """Let go of records; the others of the batch take as long as they would have."""
        given_up = [work for work in self._batch if work.position in positions]
        self._batch = [work for work in self._batch if work.position not in positions]
        return given_up

    def close(self) -> None:
        """There is nothing to give back."""

    def _perhaps_crash(self) -> None:
        percent = self._settings.crash_percent
        if percent and any(work.attempt == 1 and self._draw("crash", work) < percent for work in self._batch):
            os.kill(os.getpid(), signal.SIGKILL)

    def _draw(self, what: str, work: Work) -> int:
        """A number from 0 to 99 that is the same whenever this record is asked about."""
        text = f"{self._settings.seed}/{what}/{work.request.custom_id}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) % 100

    def _outcome(self, work: Work) -> Outcome:
        percent, most = self._settings.error_percent, self._settings.error_attempts
        lasting = most is None or work.attempt <= most
        if percent and lasting and self._draw("error", work) < percent:
            message = f"the mock engine fails {percent} percent of the records, and this is one of them"
            return Outcome(work, error=RecordError(ErrorCode.MOCK_ERROR, message), prompt_tokens=work.tokens)
        body, completion_tokens = self._answer(work)
        usage = {"prompt_tokens": work.tokens, "total_tokens": work.tokens + completion_tokens}
        if self._task != Task.EMBEDDING:
            usage["completion_tokens"] = completion_tokens
            body |= {"id": f"mock-{work.position}", "created": self._created}
        body |= {"model": self._model.name, "usage": usage}
        return Outcome(work, body, prompt_tokens=work.tokens, completion_tokens=completion_tokens)


def _token_limit(body: JsonObject) -> int | None:
    param = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
    limit = body.get(param)
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise RecordError(ErrorCode.INVALID_REQUEST, f"{param} must be a whole number of at least 1", f"body.{param}")
    return limit


def _text(content: Any) -> str:
    """The text of a message or an input; what is no text (a list of parts, token ids) as JSON."""
    return content if isinstance(content, str) else orjson.dumps(content).decode()


def _prompt(task: Task, work: Work) -> str:
    body = work.request.body
    return _text(body["messages"][-1].get("content") if task == Task.CHAT else body["prompt"])


def _generated(work: Work, prompt: str) -> tuple[str, str, int]:
    """Text, finish reason and tokens of an answer."""
    text = f"{work.request.custom_id}: {prompt[:EXCERPT_CHARACTERS]}"
    tokens = -(-len(text) // CHARACTERS_PER_TOKEN)
    if work.expected_tokens and tokens > work.expected_tokens:
        return text[: CHARACTERS_PER_TOKEN * work.expected_tokens], "length", work.expected_tokens
    return text, "stop", tokens


def _chat(work: Work) -> tuple[JsonObject, int]:
    text, finish_reason, tokens = _generated(work, _prompt(Task.CHAT, work))
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return {"object": "chat.completion", "choices": [choice]}, tokens


def _completion(work: Work) -> tuple[JsonObject, int]:
    text, finish_reason, tokens = _generated(work, _prompt(Task.COMPLETION, work))
    return {
        "object": "text_completion",
        "choices": [{"index": 0, "text": text, "finish_reason": finish_reason}],
    }, tokens


def _embedding(work: Work) -> tuple[JsonObject, int]:
    given = work.request.body["input"]
    inputs = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    data = [{"object": "embedding", "index": i, "embedding": _vector(_text(one))} for i, one in enumerate(inputs)]
    return {"object": "list", "data": data}, 0


def _vector(text: str) -> list[float]:
    digest = hashlib.blake2b(text.encode(), digest_size=_EMBEDDING_DIMENSIONS).digest()
    return [(byte - 127.5) / 127.5 for byte in digest]


_ANSWERS: dict[Task, Callable[[Work], tuple[JsonObject, int]]] = {
    Task.CHAT: _chat,
    Task.COMPLETION: _completion,
    Task.EMBEDDING: _embedding,
}
