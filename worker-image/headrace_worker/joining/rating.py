"""The part of the join that models do: window by window, each window once.

What was found of a window is put away under the hash of all that it depends on. So a join that is killed does not begin anew, and one
that is run again gives the same bytes; when the join has been committed it is deleted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

import orjson

from headrace.api.base import JsonObject
from headrace.api.records import RecordError
from headrace.api.worker import FanOutConfig, WorkerConfig
from headrace_worker.joining.cases import Case, windows
from headrace_worker.joining.raters import Found, Texts, rater
from headrace_worker.stores import join as join_uri
from headrace_worker.stores.base import NotFound, Store


class Rating:
    """The models of a join, and what they have found."""

    def __init__(self, config: WorkerConfig, fan_out: FanOutConfig, created: int, store: Store) -> None:
        """`created` in seconds since the epoch; `store` is that of the output."""
        self._raters = [rater(config, use, created) for use in fan_out.aggregation.uses]
        self._settings = fan_out.aggregation.to_object()
        self._store, self._folder = store, _folder(config.output_uri)

    def rated(self, cases: Iterable[Case]) -> Iterator[Case]:
        """The cases in their order, each answer with what the models find of it."""
        if not self._raters:
            yield from cases
            return
        for window in windows(cases):
            yield from self._rated(window)

    def _rated(self, window: Sequence[Case]) -> Iterator[Case]:
        askable = [case for case in window if case.candidates and not isinstance(case.question, RecordError)]
        found = iter(self._found([_texts(case) for case in askable]))
        asked = {case.id for case in askable}
        for case in window:
            yield _with_ratings(case, next(found)) if case.id in asked else case

    def _found(self, window: Sequence[Texts]) -> list[list[Found]]:
        """What each model finds of each question; from an earlier run, if there was one."""
        if not window:
            return []
        depends_on = [self._settings, [[it.question, it.texts] for it in window]]
        uri = join_uri(self._folder, f"{hashlib.sha256(orjson.dumps(depends_on)).hexdigest()}.json")
        with suppress(NotFound):
            return [[_read(one) for one in row] for row in orjson.loads(self._store.read(uri))]
        columns = [model.rate(window) for model in self._raters]
        rows = [list(row) for row in zip(*columns, strict=True)]
        self._store.put(uri, orjson.dumps([[[one.ratings, one.verdict] for one in row] for row in rows]))
        return rows


def forget(store: Store, output_uri: str) -> None:
    """Delete what was put away: the join is committed."""
    with suppress(NotFound):
        store.delete(*[found.uri for found in store.list(f"{_folder(output_uri)}/*.json")])


def _folder(output_uri: str) -> str:
    return join_uri(output_uri, "_headrace", "join")


def _texts(case: Case) -> Texts:
    question = case.question if isinstance(case.question, dict) else None
    return Texts(question, tuple(text for _, text in case.candidates))


def _with_ratings(case: Case, found: Sequence[Found]) -> Case:
    places = {answer.branch: place for place, (answer, _) in enumerate(case.candidates)}
    answers = tuple(
        replace(answer, ratings=tuple(one.ratings[places[answer.branch]] for one in found))
        if answer.branch in places
        else answer
        for answer in case.answers
    )
    return case._replace(answers=answers, verdict=next((one.verdict for one in found if one.verdict), None))


def _read(kept: list[JsonObject]) -> Found:
    ratings, verdict = kept
    return Found(tuple(ratings), verdict)
