"""One branch's answer to one record, and the text in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.api.base import JsonObject

NO_TEXT = "no_text"
"""Why an answer counts as missing where texts are compared: it has none, such as a tool call."""


Rating = int | str
"""What a model finds of a text; a code where it cannot read the text."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a branch has answered to a record."""

    branch: str
    weight: int
    body: JsonObject
    """In the form of the task's OpenAI endpoint."""
    ratings: tuple[Rating, ...] = ()
    """What the models of the join find of it, in the order in which the spec names them; empty for an answer without text."""

    @property
    def text(self) -> str | None:
        """What was generated; None when the answer is of another kind."""
        return text_of(self.body)


def text_of(body: JsonObject) -> str | None:
    """The text in the body of an answer; None when there is none."""
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return None
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    return text if isinstance(text, str) else None


@dataclass(frozen=True, slots=True)
class Joined:
    """The one answer to a record."""

    body: JsonObject
    contributing: tuple[str, ...]
    """The branches whose answers are in it or have counted, in the order of the spec."""
    winner: str | None = None
    """The branch whose answer it is; None when it is put together from several."""
    scores: Mapping[str, Any] = field(default_factory=dict)
    """What each contributing branch has scored."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Branches whose answers could not be used, and why."""


def ranked(answers: Iterable[Answer]) -> list[Answer]:
    """From the one that wins ties to the one that loses them all: by weight, then in the order of the branches."""
    return sorted(answers, key=lambda answer: -answer.weight)


def names(answers: Iterable[Answer]) -> tuple[str, ...]:
    """The branches of some answers."""
    return tuple(answer.branch for answer in answers)


def put_together(text: str, like: Answer, parts: Iterable[Answer]) -> JsonObject:
    """The body of an answer that has this text and is otherwise like one of its parts; tokens are those of all parts."""
    return with_text(like.body, text, summed_usage(parts))


def with_text(body: JsonObject, text: str, usage: Mapping[str, int]) -> JsonObject:
    """A body that is like this one, which has a text, but for its text and its tokens."""
    choice = body["choices"][0]
    said = {"message": {**choice["message"], "content": text}} if "message" in choice else {"text": text}
    return {**body, "choices": [{**choice, **said}], **usage_field(usage)}


def tokens(body: JsonObject) -> dict[str, int]:
    """What an answer has used, by the names of its endpoint."""
    usage = body.get("usage")
    return {k: v for k, v in usage.items() if isinstance(v, int)} if isinstance(usage, dict) else {}


def summed_usage(parts: Iterable[Answer]) -> Counter[str]:
    """The tokens of several answers together; empty when none counts any."""
    usage = Counter[str]()
    for part in parts:
        usage.update(tokens(part.body))
    return usage


def usage_field(usage: Mapping[str, int]) -> JsonObject:
    """The field `usage` of a body; none when no tokens were counted."""
    return {"usage": {name: usage[name] for name in sorted(usage)}} if usage else {}
