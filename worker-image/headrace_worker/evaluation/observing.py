"""One record after the other: what is counted of each. Memory is constant, but for a few numbers of each record in a sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from zlib import crc32

from headrace.api.base import JsonObject
from headrace.api.evaluation import Evaluation, Feature
from headrace.api.input import Prompt
from headrace.api.records import RecordError
from headrace_worker.evaluation.embeddings import Projections
from headrace_worker.evaluation.scores import Scorer
from headrace_worker.evaluation.texts import answer_text, is_refusal, length_bin, prompt_text, without_template

LANGUAGE_SAMPLE = 100_000
EMBEDDING_SAMPLE = 2_000
"""Records that are looked at for what takes long: at least so many of a run that has more, and less than twice as many."""
EMBEDDED_CHARACTERS = 1_000
"""The end of a prompt, of which the vector is made: within the context of any model."""
_AT_ONCE = 64


class Embeds(Protocol):
    """A model that answers requests, such as those for vectors."""

    def answers(self, bodies: Sequence[JsonObject]) -> list[JsonObject | RecordError]:
        """The response to each request, or what is wrong with it."""


@dataclass(frozen=True)
class Sample:
    """Records by their ids: the same ones whenever a run is looked at."""

    step: int

    @classmethod
    def of(cls, records: int, wanted: int) -> Sample:
        """At least so many of so many records, if there are as many."""
        return cls(max(1, records // wanted))

    def has(self, custom_id: str) -> bool:
        """Whether a record is in it."""
        return not crc32(custom_id.encode()) % self.step


class Observer:
    """Counts what there is to be seen in a run of so many records."""

    def __init__(
        self,
        evaluation: Evaluation,
        prompt: Prompt | None,
        records: int,
        detect: Callable[[str], str] | None,
        model: Embeds | None,
    ) -> None:
        self.scorer = Scorer(evaluation)
        self.counts: dict[Feature, Counter[str]] = {feature: Counter() for feature in Feature}
        self.projections = Projections()
        self._detect, self._model, self._own = detect, model, without_template(prompt)
        self._of_language = Sample.of(records, LANGUAGE_SAMPLE)
        self._of_vectors = Sample.of(records, EMBEDDING_SAMPLE)
        self._texts: list[str] = []

    def see(self, custom_id: str, request: JsonObject, answer: JsonObject | None, expected: str | None) -> None:
        """One record; without an answer it has failed."""
        self.counts[Feature.ERROR_RATE]["failed" if answer is None else "succeeded"] += 1
        self._see_prompt(custom_id, self._own(prompt_text(request)))
        text = answer_text(answer) if answer is not None else None
        refuses = answer is not None and is_refusal(answer, text or "")
        if text is not None or refuses:
            self.counts[Feature.REFUSAL_RATE]["refused" if refuses else "answered"] += 1
        if expected is not None:
            self.scorer.count(expected, None if refuses else text)
        if answer is not None and self._model is None and self._of_vectors.has(custom_id):
            for vector in _vectors(answer)[:1]:
                self.projections.add(vector)

    def finish(self) -> None:
        """The last word: what was put off to be done at once is done."""
        texts, self._texts = self._texts, []
        if self._model is not None and texts:
            for answer in self._model.answers([{"input": text} for text in texts]):
                for vector in _vectors(answer) if isinstance(answer, dict) else ():
                    self.projections.add(vector)

    def _see_prompt(self, custom_id: str, text: str) -> None:
        if not text.strip():
            return
        self.counts[Feature.PROMPT_LENGTH][length_bin(len(text))] += 1
        if self._detect is not None and self._of_language.has(custom_id):
            self.counts[Feature.LANGUAGE][self._detect(text)] += 1
        if self._model is not None and self._of_vectors.has(custom_id):
            self._texts.append(text[-EMBEDDED_CHARACTERS:])
            if len(self._texts) == _AT_ONCE:
                self.finish()


def _vectors(answer: Mapping[str, object]) -> list[list[float]]:
    """The vectors in an answer of the task embedding; none in any other."""
    data = answer.get("data")
    found = (one.get("embedding") for one in data if isinstance(one, dict)) if isinstance(data, list) else ()
    return [vector for vector in found if isinstance(vector, list)]
