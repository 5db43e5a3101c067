"""Putting the parts of a record together again: the aggregation `reduce`.

The input is gone through in its order, so the parts of a record come one after the other, whenever each was answered. Only the record
at hand is held: the texts of its parts, of which all together may not be longer than a record may be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from headrace.api.aggregation import MissingParts, Reduce
from headrace.api.base import JsonObject
from headrace.api.records import MAX_RECORD_BYTES, ErrorCode, RecordError, joined_line
from headrace.api.splitting import parent_of
from headrace.api.worker import JoinBranch
from headrace_worker.joining.answers import Joined, text_of, tokens, with_text
from headrace_worker.joining.cases import Case
from headrace_worker.joining.lines import Joiner, Outcome
from headrace_worker.layout import output_id

NAMED_PARTS = 1000
"""So many missing parts a line names; it counts them all."""


def reduced_lines(cases: Iterable[Case], spec: Reduce, joiner: Joiner) -> Iterator[tuple[bytes, bool]]:
    """The line of each record, by the cases of all parts in the order of the input, and whether it is an error."""
    for number, (parent, own) in enumerate(groupby(cases, key=lambda case: parent_of(case.custom_id))):
        reduction = Reduction(spec)
        for part in own:
            reduction.add(part, joiner.outcome(part))
        answer, about = reduction.answer(), reduction.about(joiner.branches)
        row = joined_line(output_id(number), parent, answer, about, reduction.attempts)
        yield row, isinstance(answer, RecordError)


class Reduction:
    """The parts of one record, added in their order."""

    def __init__(self, spec: Reduce) -> None:
        self.attempts = 0
        self._spec = spec
        self._total = self._answered = self._bytes = 0
        self._texts: list[str] = []
        self._like: JsonObject = {}
        """The body of the first answer."""
        self._usage = Counter[str]()
        self._contributing: set[str] = set()
        self._holes: dict[str, str] = {}
        """By branch, why it has not answered the first part that it has not answered."""
        self._missing: dict[str, str] = {}
        self._first_error = ""

    def add(self, part: Case, outcome: Outcome) -> None:
        """The next part, and what its answers come to."""
        self._total += 1
        self.attempts += part.attempts
        self._holes = {**outcome.missing, **self._holes}
        answer = outcome.answer
        if isinstance(answer, Joined):
            self._add_text(answer)
            return
        self._first_error = self._first_error or f"{part.custom_id}: {answer.message}"
        if len(self._missing) < NAMED_PARTS:
            self._missing[part.custom_id] = answer.code.value

    def _add_text(self, joined: Joined) -> None:
        text = text_of(joined.body) or ""
        self._answered += 1
        self._contributing.update(joined.contributing)
        self._usage.update(tokens(joined.body))
        self._like = self._like or joined.body
        self._bytes += len(text.encode()) + len(self._spec.separator.encode())
        if self._bytes <= MAX_RECORD_BYTES:
            self._texts.append(text)

    def answer(self) -> JsonObject | RecordError:
        """The one answer, or why there is none."""
        lost = self._total - self._answered
        if not self._answered:
            return RecordError(ErrorCode.NO_ANSWER, f"none of {self._total} parts has an answer: {self._first_error}")
        if lost and self._spec.missing_parts == MissingParts.FAIL:
            message = f"{lost} of {self._total} parts have no answer, and missingParts is Fail: {self._first_error}"
            return RecordError(ErrorCode.PARTS_MISSING, message)
        if self._bytes > MAX_RECORD_BYTES:
            most = MAX_RECORD_BYTES // 1024**2
            message = (
                f"the texts of {self._answered} parts have more than {most} MiB together: a record may not be longer"
            )
            return RecordError(ErrorCode.NOT_JOINABLE, message)
        return with_text(self._like, self._spec.separator.join(self._texts), self._usage)

    def about(self, branches: Sequence[JoinBranch]) -> JsonObject:
        """How it came about: the branches that have a share in it, why others have none, and the parts that are missing."""
        names = [branch.name for branch in branches]
        return {
            "winner": None,
            "scores": {},
            "contributing": [name for name in names if name in self._contributing],
            "missing": {n: self._holes[n] for n in names if n in self._holes and n not in self._contributing},
            "parts": {"total": self._total, "answered": self._answered, "missing": self._missing},
        }
