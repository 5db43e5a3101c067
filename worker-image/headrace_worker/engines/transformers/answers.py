"""When an answer is finished, and what comes of it."""

from __future__ import annotations

from headrace.api.base import JsonObject
from headrace.api.model import Task
from headrace_worker.engines.base import Outcome
from headrace_worker.engines.transformers.logprobs import of_chat, of_completion
from headrace_worker.engines.transformers.responses import Responses
from headrace_worker.engines.transformers.sequences import Sequence
from headrace_worker.engines.transformers.tokens import Prompts

_SPARE_TOKENS = 8
"""Special tokens have no text, so a stop text may end a few tokens earlier than its bytes say."""


class Answers:
    """Watches sequences for their end."""

    def __init__(self, prompts: Prompts, end_tokens: frozenset[int], task: Task, responses: Responses) -> None:
        """`end_tokens` are the ids by which the model says that it is finished."""
        self._prompts = prompts
        self._end_tokens = end_tokens
        self._task = task
        self._responses = responses

    def outcome(self, sequence: Sequence) -> Outcome | None:
        """The outcome of a sequence that has just got a token; None when it goes on."""
        if sequence.tokens[-1] in self._end_tokens and not sequence.sampling.ignore_eos:
            return self._finished(sequence, self._text(sequence, sequence.answer[:-1]), "stop")
        if sequence.sampling.stop and (text := self._stopped(sequence)) is not None:
            return self._finished(sequence, text, "stop")
        if sequence.generated >= sequence.sampling.max_tokens:
            return self._finished(sequence, self._text(sequence, sequence.answer), "length")
        return None

    def so_far(self, sequence: Sequence) -> str:
        """The text of a sequence that goes on; a character of which a part is missing is left for later."""
        return self._text(sequence, sequence.answer).rstrip("\ufffd")

    def _finished(self, sequence: Sequence, text: str, reason: str) -> Outcome:
        usage = (len(sequence.prompt), sequence.generated)
        body = self._responses.generated(sequence.work.request.custom_id, text, reason, usage)
        if sequence.sampling.logprobs is not None:
            body["choices"][0]["logprobs"] = self._logprobs(sequence)
        return Outcome(
            sequence.work, body, prompt_tokens=usage[0], completion_tokens=usage[1], first_token=sequence.first_token
        )

    def _logprobs(self, sequence: Sequence) -> JsonObject:
        """How likely the tokens were, without the one that says the end."""
        places, tokens = sequence.logprobs, sequence.tokens
        if tokens[-1] in self._end_tokens and not sequence.sampling.ignore_eos:
            places = places[:-1]

        def reads(place: int, token: int) -> str:
            return self._prompts.continuation(tokens[: len(sequence.prompt) + place], [token])

        return of_chat(places, reads) if self._task == Task.CHAT else of_completion(places, reads)

    def _stopped(self, sequence: Sequence) -> str | None:
        """The text before the first stop text; None when there is none. Looks at the last tokens before it decodes all of them."""
        stop = sequence.sampling.stop
        # A token is at least one byte, so the stop text that a new token completes lies within so many tokens.
        window = max(len(text.encode()) for text in stop) + _SPARE_TOKENS
        answer = sequence.answer
        tail = self._prompts.text(answer[-window:])
        if not any(text in tail for text in stop):
            return None
        whole = self._text(sequence, answer)
        found = [place for place in map(whole.find, stop) if place >= 0]
        return whole[: min(found)] if found else None

    def _text(self, sequence: Sequence, answer: list[int]) -> str:
        if self._task == Task.COMPLETION:
            return self._prompts.continuation(sequence.prompt, answer)
        return self._prompts.text(answer)
