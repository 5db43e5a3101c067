"""What a record says that its answer should be, and whether an answer is that. Everything here is pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

from headrace.api.base import JsonObject
from headrace.api.evaluation import Evaluation, Match
from headrace.api.model import Task
from headrace.api.records import ErrorCode, RecordError

MAX_EXPECTED_LENGTH = 16_384
_KINDS = {list: "a list", dict: "an object", bool: "a boolean", int: "a number", float: "a number"}


def expected_answer(record: JsonObject, evaluation: Evaluation, task: Task) -> str | None:
    """What the field `expected` of a record says; None where there is none. Raises `RecordError` when it can be no answer."""
    expected = record.get("expected")
    if expected is None:
        return None
    if task == Task.EMBEDDING:
        raise _invalid("expected cannot be compared with the answers of the task embedding, which are vectors")
    if not isinstance(expected, str):
        raise _invalid(f"expected must be a string, not {_KINDS[type(expected)]}")
    if not expected.strip() or len(expected) > MAX_EXPECTED_LENGTH:
        raise _invalid(f"expected must have 1 to {MAX_EXPECTED_LENGTH} characters")
    if evaluation.match == Match.LABEL and normalized(expected) not in map(normalized, evaluation.labels):
        raise _invalid(f"expected must be one of evaluation.labels, not {expected[:100]}")
    return expected


def _invalid(message: str) -> RecordError:
    return RecordError(ErrorCode.INVALID_EXPECTED, message, "expected")


def normalized(text: str) -> str:
    """The words of a text, whatever their case, punctuation and spacing, and whichever of several ways its characters are written.

    A text without any words stays as it is, so that `+` and `-` are not the same.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(" " if unicodedata.category(one)[0] in "PSZC" else one for one in folded).split()
    return " ".join(words) or folded.strip()


def clashing_labels(labels: Iterable[str]) -> tuple[str, str] | None:
    """Two labels that no answer can tell apart; None when there are none."""
    seen: dict[str, str] = {}
    for label in labels:
        first = seen.setdefault(normalized(label), label)
        if first is not label:
            return first, label
    return None


Reading = Callable[[str], str]
"""What an answer, or an expected one, comes to where both are compared; empty when an answer says nothing."""


def reading(evaluation: Evaluation) -> Reading:
    """How texts are read before they are compared. With labels it is one of these, as the spec writes it, or nothing."""
    if evaluation.match == Match.EXACT:
        return str.strip
    return normalized if evaluation.match == Match.NORMALIZED else _label_reading(evaluation.labels)


def _label_reading(labels: Iterable[str]) -> Reading:
    by_words = {normalized(label): label for label in labels}
    longest_first = sorted(by_words, key=lambda words: -len(words))
    found = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")

    def read(text: str) -> str:
        words = normalized(text)
        if words in by_words:
            return by_words[words]
        named = set(found.findall(words))
        return by_words[named.pop()] if len(named) == 1 else ""

    return read
