"""How many tokens a request has, roughly, and without a tokeniser."""

from __future__ import annotations

from typing import Any

from headrace.api.base import JsonObject

CHARACTERS_PER_TOKEN = 4
"""What a token of running text has, roughly, whatever the model."""
MEDIA_TOKENS = 256
"""What an image or a sound counts as, roughly, whatever the model: a photo of 256 x 256 in patches of 16 x 16."""


def estimate_prompt_tokens(body: JsonObject) -> int:
    """Tokens of a request's prompt, at four characters each: good enough for plans and budgets, never for limits."""
    messages = body.get("messages")
    if messages is None:
        return -(-_text_length(body.get("prompt") or body.get("input")) // CHARACTERS_PER_TOKEN)
    length = 0
    for message in messages:
        content = message.get("content")
        length += len(content) if isinstance(content, str) else _text_length(content)
    return -(-length // CHARACTERS_PER_TOKEN)


_MEDIA_TYPES = ("image_url", "input_audio", "audio_url")


def _text_length(content: Any) -> int:
    """Characters of the text in a prompt: a text, a token, a part of a message, or a list of these. Media count as much text."""
    length, todo = 0, [content]  # not by recursion: a record may be nested deeper than Python's stack
    while todo:
        part = todo.pop()
        if isinstance(part, str):
            length += len(part)
        elif isinstance(part, list):
            todo.extend(part)
        elif isinstance(part, dict):
            todo.append(part.get("text"))
            length += CHARACTERS_PER_TOKEN * MEDIA_TOKENS * (part.get("type") in _MEDIA_TYPES)
        elif isinstance(part, int):
            length += CHARACTERS_PER_TOKEN
    return length
