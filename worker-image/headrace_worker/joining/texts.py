"""What a model puts around its answers, and how to look past it."""

from __future__ import annotations

import re
import string
import unicodedata

_FENCE = re.compile(r"\s*```[A-Za-z]*\n(.*?)\n?```\s*", re.DOTALL)
_AROUND = string.whitespace + string.punctuation + "…“”„‘’‚«»¡¿"  # noqa: RUF001 - typographic quotation marks are meant


def unfenced(text: str) -> str:
    """The inside of a text that is one block of code in Markdown, as chat models like to write JSON; any other as it is."""
    found = _FENCE.fullmatch(text)
    return found[1] if found else text


def normalized(text: str) -> str:
    """A text as a vote: without case, with single spaces, without the punctuation around it; a text of punctuation alone stays."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return plain.strip(_AROUND) or plain
