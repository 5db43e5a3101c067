"""The texts of a record: what was asked, what was answered, in which language, and whether the answer declines to answer."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from typing import Any

from headrace.api.base import JsonObject
from headrace.api.input import Prompt
from headrace_worker.joining.answers import text_of

LANGUAGE_CHARACTERS = 400
"""The end of a prompt, by which its language is told: instructions come first."""
_FEWEST_LETTERS = 12
"""In fewer no language can be told."""
UNDETERMINED = "und"
"""The language of a text that is too short, or is in none; as ISO 639 writes it."""
_BINS_PER_OCTAVE = 8
_BEGINNING = 300
"""Characters of an answer by which a refusal is told."""

log = logging.getLogger(__name__)


def prompt_text(body: JsonObject) -> str:
    """The text that a request asks about: of a conversation what the user says; empty where there is none, as in an image."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return _texts(body.get("prompt") or body.get("input"))
    asked = [message for message in messages if message.get("role") == "user"] or messages
    return "\n".join(filter(None, (_texts(message.get("content")) for message in asked)))


def _texts(content: Any) -> str:
    """The texts in a content, which is a text, or a list of texts and of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else ()
    found = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return "\n".join(text for text in found if isinstance(text, str))


def without_template(prompt: Prompt | None) -> Callable[[str], str]:
    """From the text of a request to what its record has put into it: what the template has before and after that is taken away.

    Otherwise a long template in one language would hide that the records are in another.
    """
    template = prompt.template if prompt is not None else ""
    first, last = _BEGIN.search(template), template.rfind("}")
    if first is None:
        return str
    before, after = template[: first.start()], template[last + 1 :].rstrip("\n")  # Jinja drops the last line break
    return lambda text: text.removeprefix(before).rstrip("\n").removesuffix(after)


_BEGIN = re.compile(r"\{[{%#]")


def length_bin(characters: int) -> str:
    """The bin of a length of at least 1: eight for each doubling, so that lengths in one differ by less than a tenth."""
    return str(int(_BINS_PER_OCTAVE * math.log2(characters)))


def answer_text(body: JsonObject) -> str | None:
    """What was answered: a text, or the label with the greatest score; None for a vector or a call of a tool."""
    text = text_of(body)
    if text is not None:
        return text
    data = body.get("data")
    first = data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else {}
    labels = first.get("labels")
    return str(labels[0]["label"]) if labels else None


_REFUSAL = re.compile(
    r"\W*(?:(?:i'?m|i am)?\s*(?:very |so |really )?sorry\b.{0,40}?\b|unfortunately,?\s*|i apologi[sz]e\b.{0,40}?\b)?"
    r"(?:i\s+(?:can'?t|cannot|can not|am unable to|won'?t|will not|am not able to)|i'm (?:unable|not able) to)\s+"
    r"(?:help|assist|provide|answer|comply|fulfil|do that|create|write|generate|discuss|continue|share|support|engage|give)"
    r"|\W*as an ai\b"
    r"|\W*(?:es tut mir leid\b.{0,20}?|leider )(?:ich )?kann (?:ich )?.{0,20}?\bnicht"
    r"|\W*(?:je suis )?désolée?\b.{0,20}?je ne peux pas"
    r"|\W*lo siento\b.{0,20}?no puedo"
    r"|\W*(?:mi dispiace|spiacente)\b.{0,20}?non posso"
    r"|\W*(?:sinto muito|desculpe)\b.{0,20}?não posso"
    r"|\W*(?:抱歉|对不起|很抱歉).{0,6}(?:不能|无法)"
    r"|\W*申し訳(?:ありません|ございません)",
    re.IGNORECASE | re.DOTALL,
)
"""How answers begin that decline to answer. It misses some, in every run alike: it is there to see that there are more of them."""


def is_refusal(body: JsonObject, text: str) -> bool:
    """Whether an answer declines to answer: the endpoint says so, or its text begins like that."""
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else {}
    message = choice.get("message")
    said = isinstance(message, dict) and bool(message.get("refusal"))
    begins = text[:_BEGINNING].replace("\u2019", "'")  # the apostrophe of typographers
    return said or choice.get("finish_reason") == "content_filter" or _REFUSAL.match(begins) is not None


def language_detector() -> Callable[[str], str] | None:
    """From a text to the code of its language; None where the package for it is not installed."""
    try:
        import py3langid  # noqa: PLC0415 - it reads its model when it is imported
    except ModuleNotFoundError as error:
        log.warning("languages are not looked at: install %s, as with `pip install headrace[worker]`", error.name)
        return None

    def detect(text: str) -> str:
        end = text[-LANGUAGE_CHARACTERS:]
        if sum(map(str.isalpha, end)) < _FEWEST_LETTERS:
            return UNDETERMINED
        return str(py3langid.classify(end)[0])

    return detect
