"""The question that was answered: the record's request, in the form that a model of the join wants."""

from __future__ import annotations

from headrace.api.base import JsonObject
from headrace.api.model import Task


def as_request(question: JsonObject | None, task: Task) -> JsonObject:
    """The request for a model of that task; a chat that becomes a prompt is the text of its messages."""
    assert question is not None, "the join reads the questions when a model is shown them"
    if task == Task.CHAT:
        return question if "messages" in question else {"messages": [{"role": "user", "content": as_text(question)}]}
    return question if isinstance(question.get("prompt"), str | list) else {"prompt": as_text(question)}


def as_text(question: JsonObject) -> str:
    """What a reader is shown of a request: the texts of its messages, or its prompt."""
    if "messages" not in question:
        return str(question.get("prompt", ""))
    parts = (_content(message.get("content")) for message in question["messages"])
    return "\n\n".join(part for part in parts if part)


def _content(content: object) -> str:
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        return "\n".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""
