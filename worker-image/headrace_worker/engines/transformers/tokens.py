"""Prompts: from the body of a request to token ids, and from generated ids back to text. Needs the tokeniser, never the weights."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from headrace.api.base import JsonObject
from headrace.api.records import ErrorCode, RecordError
from headrace_worker.engines.transformers.parameters import invalid
from headrace_worker.errors import JobFailed

_LEFT_CONTEXT = 6
"""Tokens of the prompt that are decoded with a completion, so that a leading space is neither lost nor made up."""


class Prompts:
    """The tokeniser of one model, with the rules of its endpoints."""

    def __init__(self, tokenizer: Any, *, context: int, answer: int, vocabulary: int) -> None:
        """`context` is the longest sequence in tokens, of which `answer` must be left free; `vocabulary` counts the token ids."""
        self.tokenizer = tokenizer
        self.context = context
        self._answer = answer
        self._vocabulary = vocabulary

    def chat(self, body: JsonObject) -> list[int]:
        """The ids of a conversation in the model's own chat template."""
        messages = [_flat(message, i) for i, message in enumerate(body["messages"])]
        options = body.get("chat_template_kwargs") or {}
        if not isinstance(options, dict):
            raise invalid("chat_template_kwargs", "must be an object: the variables of the chat template")
        try:
            text = self.tokenizer.apply_chat_template(
                messages, chat_template=self.chat_template, add_generation_prompt=True, tokenize=False, **options
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise invalid("messages", f"must fit the chat template of the model: {error}") from error
        return self._fitting(self._encode(text, special=False), "messages")

    def completion(self, body: JsonObject) -> list[int]:
        """The ids of a prompt: a text, or a list of token ids."""
        return self._ids(body["prompt"], "prompt", "put each prompt into a record of its own")

    def inputs(self, body: JsonObject) -> list[list[int]]:
        """The ids of each input of an embedding: a text, a list of token ids, or a list of either."""
        given = body["input"]
        if isinstance(given, str) or all(isinstance(one, int) for one in given):
            given = [given]
        return [self._ids(one, f"input[{i}]", "or a list of these") for i, one in enumerate(given)]

    def text(self, generated: list[int]) -> str:
        """The text of generated ids, without the special tokens."""
        text: str = self.tokenizer.decode(generated, skip_special_tokens=True)
        return text

    def continuation(self, prompt: list[int], generated: list[int]) -> str:
        """The text that follows a prompt, with the space that may stand between the two."""
        context = prompt[-_LEFT_CONTEXT:]
        before, both = self.text(context), self.text(context + generated)
        return both[len(before) :] if both.startswith(before) else self.text(generated)

    @cached_property
    def chat_template(self) -> str:
        """The model's chat template. Raises `JobFailed` when it has none."""
        try:
            template: str = self.tokenizer.get_chat_template()
        except ValueError as error:
            raise JobFailed(
                "ModelNotUsable",
                "the model has no chat template: set model.task to completion and use prompts, or use an instruction-tuned model",
            ) from error
        return template

    def _ids(self, given: Any, param: str, hint: str) -> list[int]:
        if isinstance(given, str):
            return self._fitting(self._encode(given, special=True), param)
        whole = isinstance(given, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in given)
        if not whole:
            raise invalid(param, f"must be a text or a list of token ids; {hint}")
        if not all(0 <= i < self._vocabulary for i in given):
            raise invalid(param, f"must hold token ids from 0 to {self._vocabulary - 1}")
        return self._fitting(given, param)

    def _encode(self, text: str, *, special: bool) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=special)["input_ids"]
        return ids

    def _fitting(self, ids: list[int], param: str) -> list[int]:
        if not ids:
            raise invalid(param, "must not be empty: it has no tokens")
        longest = self.context - self._answer
        if len(ids) > longest:
            room = " and the answer needs room" if self._answer else ""
            raise RecordError(
                ErrorCode.CONTEXT_LENGTH_EXCEEDED,
                f"{param} has {len(ids)} tokens, the context of the model has {self.context}{room}: "
                f"shorten it to {longest} tokens, or use a model with a longer context",
                f"body.{param}",
            )
        return ids


def _flat(message: JsonObject, index: int) -> JsonObject:
    """A message whose content is one text: parts of text are joined by a line break, other parts are refused."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return message
    parts = content if isinstance(content, list) else [content]
    if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts):
        raise invalid(f"messages[{index}].content", "must be a text or a list of parts of the type text")
    return {**message, "content": "\n".join(part["text"] for part in parts)}
