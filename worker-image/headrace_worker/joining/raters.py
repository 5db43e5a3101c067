"""What models find of the answers to a record: whole numbers, so that the same answers always have the same winner."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from headrace.api.aggregation import Cluster
from headrace.api.base import JsonObject
from headrace.api.model import Task
from headrace.api.records import RecordError
from headrace.api.scorers import Judge, LogLikelihoodScorer, ModelUse
from headrace.api.worker import WorkerConfig
from headrace_worker.engines.base import Continuation
from headrace_worker.joining.answers import Rating
from headrace_worker.joining.judging import Judging
from headrace_worker.joining.models import Asked, Weighed
from headrace_worker.joining.questions import as_request

_THOUSAND = 1000


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts that were answered to one question."""

    question: JsonObject | None
    """The request; None where no model of the join is shown it."""
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What one model finds of them."""

    ratings: tuple[Rating, ...]
    """Of each text."""
    verdict: JsonObject | None = None
    """What a judge has said."""


class Rater(Protocol):
    """One model of the join, at its work."""

    def rate(self, window: Sequence[Texts]) -> list[Found]:
        """What it finds of each. The same window gives the same."""


def rater(config: WorkerConfig, use: ModelUse, created: int) -> Rater:
    """The rater of a model in the spec; `created` in seconds since the epoch."""
    if isinstance(use, LogLikelihoodScorer):
        return LogLikelihoods(Weighed(config, use), use.model.task)
    if isinstance(use, Judge):
        return Verdicts(Asked(config, use, created), use)
    if isinstance(use, Cluster):
        return Clusters(Asked(config, use, created), use.similarity_percent)
    return Agreements(Asked(config, use, created))


@dataclass(frozen=True)
class LogLikelihoods:
    """The mean log-probability of a token of the text after the question, in thousandths of a nat."""

    model: Weighed
    task: Task

    def rate(self, window: Sequence[Texts]) -> list[Found]:
        """One pass over all texts of the window."""
        asked = [Continuation(as_request(it.question, self.task), text) for it in window for text in it.texts]
        values = iter(self.model.mean(asked))
        return [Found(tuple(_in_thousandths(next(values)) for _ in it.texts)) for it in window]


@dataclass(frozen=True)
class Agreements:
    """The mean cosine of a text's vector and those of the other texts, in thousandths; 0 for a text that is alone."""

    model: Asked

    def rate(self, window: Sequence[Texts]) -> list[Found]:
        """One pass over all texts of the window, each read once."""
        vectors = _vectors(self.model, window)
        return [Found(_agreements([vectors[text] for text in it.texts])) for it in window]


@dataclass(frozen=True)
class Clusters:
    """The number of the cluster that a text is in, from 0; the first text is in the first."""

    model: Asked
    similarity_percent: int

    def rate(self, window: Sequence[Texts]) -> list[Found]:
        """One pass over all texts of the window, each read once."""
        vectors = _vectors(self.model, window)
        least = self.similarity_percent * _THOUSAND // 100
        return [Found(_clusters([vectors[text] for text in it.texts], least)) for it in window]


@dataclass(frozen=True)
class Verdicts:
    """1 for the text that a judge has picked, 0 for the others. It is asked only where texts differ."""

    model: Asked
    judge: Judge

    def rate(self, window: Sequence[Texts]) -> list[Found]:
        """One request for each question whose answers differ."""
        judging = Judging(self.judge)
        bodies = [judging.request(it.question, it.texts) if len(set(it.texts)) > 1 else None for it in window]
        responses = iter(self.model.answers([body for body in bodies if isinstance(body, dict)]))
        found = []
        for it, body in zip(window, bodies, strict=True):
            if body is None:
                found.append(Found((0,) * len(it.texts)))
                continue
            picked, verdict = judging.verdict(next(responses) if isinstance(body, dict) else body, len(it.texts))
            found.append(Found(tuple(int(number == picked) for number in range(len(it.texts))), verdict))
        return found


_Vector = tuple[float, ...] | str
"""Of length 1, or 0 where there is no direction; a code for a text that the model cannot read."""


def _vectors(model: Asked, window: Iterable[Texts]) -> dict[str, _Vector]:
    texts = list(dict.fromkeys(text for it in window for text in it.texts))
    answers = model.answers([{"input": text} for text in texts])
    return {text: _vector(answer) for text, answer in zip(texts, answers, strict=True)}


def _vector(answer: JsonObject | RecordError) -> _Vector:
    if isinstance(answer, RecordError):
        return answer.code.value
    values: list[Any] = answer["data"][0]["embedding"]
    length = math.sqrt(sum(value * value for value in values))
    return tuple(value / length for value in values) if length else tuple(values)


def _agreements(vectors: Sequence[_Vector]) -> tuple[Rating, ...]:
    readable = {place: vector for place, vector in enumerate(vectors) if not isinstance(vector, str)}
    ratings: list[Rating] = []
    for place, vector in enumerate(vectors):
        if isinstance(vector, str):
            ratings.append(vector)
            continue
        others = [_similarity(vector, other) for there, other in readable.items() if there != place]
        ratings.append(round(sum(others) / max(1, len(others))))
    return tuple(ratings)


def _clusters(vectors: Sequence[_Vector], least: int) -> tuple[Rating, ...]:
    """Texts that are similar are in one cluster, and so are those that a chain of similar texts connects: no order matters."""
    ratings: list[Rating] = []
    for place, vector in enumerate(vectors):
        if isinstance(vector, str):
            ratings.append(vector)
            continue
        near = {
            ratings[before]
            for before, other in enumerate(vectors[:place])
            if not isinstance(other, str) and _similarity(vector, other) >= least
        }
        own = min((it for it in near if isinstance(it, int)), default=place)
        ratings = [own if rating in near and isinstance(rating, int) else rating for rating in ratings]
        ratings.append(own)
    return tuple(ratings)


def _similarity(one: tuple[float, ...], other: tuple[float, ...]) -> int:
    """The cosine in thousandths."""
    return round(_THOUSAND * sum(a * b for a, b in zip(one, other, strict=True)))


def _in_thousandths(value: float | RecordError) -> Rating:
    return value.code.value if isinstance(value, RecordError) else round(value * _THOUSAND)
