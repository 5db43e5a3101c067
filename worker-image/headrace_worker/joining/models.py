"""The models of the join: each loaded when it is first needed, and driven through the same engines as a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from headrace.api.base import JsonObject
from headrace.api.records import RecordError, Request
from headrace.api.scorers import ModelUse
from headrace.api.worker import WorkerConfig
from headrace_worker import engines
from headrace_worker.engines.base import Continuation, Engine, Likelihood, Work


class _Loadable(Protocol):
    def load(self) -> None: ...


_Model = TypeVar("_Model", bound=_Loadable)


class _Lazy(Generic[_Model]):
    """A model that is loaded when somebody asks for it: a join that was killed at its end may need none."""

    def __init__(self, make: Callable[[], _Model]) -> None:
        self._make = make
        self._made: _Model | None = None

    @property
    def ready(self) -> _Model:
        if self._made is None:
            self._made = self._make()
            self._made.load()
        return self._made


class Asked:
    """A model that answers requests."""

    def __init__(self, config: WorkerConfig, use: ModelUse, created: int) -> None:
        """`created` in seconds since the epoch."""
        own = _config_of(config, use)
        self._engine: _Lazy[Engine] = _Lazy(lambda: engines.create(own, created))

    def answers(self, bodies: Sequence[JsonObject]) -> list[JsonObject | RecordError]:
        """The response to each request, or what is wrong with it."""
        engine = self._engine.ready
        found: list[JsonObject | RecordError] = [{}] * len(bodies)
        waiting: list[Work] = []
        for place, body in enumerate(bodies):
            try:
                waiting.append(engine.prepare(place, Request(str(place), body)))
            except RecordError as error:
                found[place] = error
        while waiting or engine.running:
            room = engine.room
            engine.submit(waiting[:room])
            waiting = waiting[room:]
            for outcome in engine.step():
                answer = outcome.error if outcome.body is None else outcome.body
                assert answer is not None, "an outcome is a response or an error"
                found[outcome.work.position] = answer
        return found


class Weighed:
    """A language model that says how likely texts are."""

    def __init__(self, config: WorkerConfig, use: ModelUse) -> None:
        own = _config_of(config, use)
        self._model: _Lazy[Likelihood] = _Lazy(lambda: engines.likelihood(own))

    def mean(self, texts: Sequence[Continuation]) -> list[float | RecordError]:
        """The mean log-probability of a token of each, in nats, or what is wrong with it."""
        return self._model.ready.mean(texts)


def _config_of(config: WorkerConfig, use: ModelUse) -> WorkerConfig:
    """What an engine is told that runs a model of the join."""
    return config.model_copy(update={"model": use.model, "engine": use.engine, "parameters": {}, "fan_out": None})
