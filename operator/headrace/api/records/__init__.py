"""Records: a line of input becomes one `Request`, or one `RecordError` that says what is wrong with it, and in the end a line of output.

The forms are OpenAI's: an input line is `{custom_id, method, url, body}`, an output line `{id, custom_id, response, error}`.
Everything here is pure and fast: it runs over a million lines on one core.
"""

from __future__ import annotations

from headrace.api.records.errors import ErrorCode, RecordError
from headrace.api.records.fingerprint import fingerprinter
from headrace.api.records.lines import error_line, joined_line, result_line
from headrace.api.records.reading import (
    MAX_CUSTOM_ID_LENGTH,
    MAX_RECORD_BYTES,
    Reader,
    Request,
    id_reader,
    reader,
    record_custom_id,
    record_fields,
    request_maker,
    text_fields,
    text_id_reader,
    text_reader,
)
from headrace.api.records.tokens import CHARACTERS_PER_TOKEN, MEDIA_TOKENS, estimate_prompt_tokens

__all__ = [
    "CHARACTERS_PER_TOKEN",
    "MAX_CUSTOM_ID_LENGTH",
    "MAX_RECORD_BYTES",
    "MEDIA_TOKENS",
    "ErrorCode",
    "Reader",
    "RecordError",
    "Request",
    "error_line",
    "estimate_prompt_tokens",
    "fingerprinter",
    "id_reader",
    "joined_line",
    "reader",
    "record_custom_id",
    "record_fields",
    "request_maker",
    "result_line",
    "text_fields",
    "text_id_reader",
    "text_reader",
]
