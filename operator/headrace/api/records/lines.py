"""Lines of results and errors, in OpenAI's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from headrace.api.base import JsonObject
from headrace.api.records.errors import RecordError


def result_line(
    record_id: str,
    custom_id: str,
    body: JsonObject,
    attempts: int,
    about: Mapping[str, Any] | None = None,
    fingerprint: str | None = None,
) -> bytes:
    """One line of the results file, newline included: OpenAI's form, `attempts`, `fingerprint`, and `headrace` if there is more to say."""
    response = {"status_code": 200, "request_id": record_id, "body": body}
    row: dict[str, Any] = {
        "id": record_id,
        "custom_id": custom_id,
        "response": response,
        "error": None,
        "attempts": attempts,
    }
    if fingerprint is not None:
        row["fingerprint"] = fingerprint
    if about is not None:
        row["headrace"] = about
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


def error_line(record_id: str, custom_id: str, error: RecordError, attempts: int) -> bytes:
    """One line of the errors file, newline included; `attempts` is 0 for a record that was never worked on."""
    shown = {"code": error.code.value, "message": error.message, "param": error.param}
    row = {"id": record_id, "custom_id": custom_id, "response": None, "error": shown, "attempts": attempts}
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


def joined_line(
    record_id: str, custom_id: str, answer: JsonObject | RecordError, about: Mapping[str, Any], attempts: int
) -> bytes:
    """One line of a joined output, newline included: that of the answer or error, plus `headrace`, which says how it came about."""
    if isinstance(answer, RecordError):
        row = error_line(record_id, custom_id, answer, attempts)
    else:
        row = result_line(record_id, custom_id, answer, attempts)
    return _with_about(row, about)


def _with_about(row: bytes, about: Mapping[str, Any]) -> bytes:
    return row.removesuffix(b"}\n") + b',"headrace":' + orjson.dumps(about) + b"}\n"
