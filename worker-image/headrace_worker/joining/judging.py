"""Asking a model which answer is best, and reading what it says.

It must say the number of an answer and nothing else. Anything else is no verdict, and then all answers are equal to the judge: the next
scorer decides, or the greater weight, or the order of the branches. The row says so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from headrace.api.base import JsonObject
from headrace.api.input import Prompt
from headrace.api.prompts import PromptError, requester
from headrace.api.records import ErrorCode, RecordError
from headrace.api.scorers import Judge
from headrace_worker.joining.answers import Answer
from headrace_worker.joining.questions import as_text

DEFAULT = Prompt(
    template="""Question:
{{ question }}

{% for answer in answers %}Answer {{ answer.number }}:
{{ answer.text }}

{% endfor %}Which answer is best? Say only its number.""",
)
PARAMETERS: JsonObject = {"max_tokens": 8, "temperature": 0}
_NUMBER = re.compile(r"[1-9][0-9]{0,3}")
SHOWN_CHARACTERS = 200
"""So much of a verdict is kept."""


class Judging:
    """A judge of the spec."""

    def __init__(self, judge: Judge) -> None:
        self._parameters = {**PARAMETERS, **judge.parameters}
        self._request = requester(judge.prompt or DEFAULT, judge.model.task)

    def request(self, question: JsonObject | None, texts: Sequence[str]) -> JsonObject | RecordError:
        """What the judge is asked; an error when the template does not fit."""
        assert question is not None, "the join reads the questions when there is a judge"
        answers = [{"number": number, "text": text} for number, text in enumerate(texts, 1)]
        try:
            body = self._request({"question": as_text(question), "answers": answers})
        except PromptError as error:
            return RecordError(ErrorCode.TEMPLATE_ERROR, f"the judge's template does not fit: {error}")
        return {**self._parameters, **body}

    def verdict(self, response: JsonObject | RecordError, texts: int) -> tuple[int | None, JsonObject]:
        """Which of so many texts it has picked, from 0, or None; and what the row says of it."""
        if isinstance(response, RecordError):
            return None, {"valid": False, "text": None, "error": response.code.value}
        said = Answer("judge", 0, response).text or ""
        number = said.strip()
        picked = int(number) - 1 if _NUMBER.fullmatch(number) else texts
        valid = picked < texts
        return (picked if valid else None), {"valid": valid, "text": said[:SHOWN_CHARACTERS]}
