"""What several kinds of request may say beside their bodies."""

from __future__ import annotations

from headrace.api.base import JsonObject
from headrace.core.httpapi.operation import Parameter

TEXT: JsonObject = {"type": "string"}
ID: JsonObject = {"type": "string", "minLength": 1}
KEY = Parameter(
    "Idempotency-Key",
    "header",
    "The same request under the same key is made once, however often it is sent.",
    {"type": "string", "minLength": 1, "maxLength": 255},
)
TRACEPARENT = Parameter(
    "traceparent",
    "header",
    "The trace that the request belongs to, as the W3C has it; another text counts as none.",
    TEXT,
)
FILE = Parameter("file_id", "path", "The id of a file.", ID, required=True)
BATCH = Parameter("batch_id", "path", "The id of a batch.", ID, required=True)
REQUEST = Parameter("request_id", "path", "The id of a single request.", ID, required=True)
AFTER = Parameter("after", "query", "Id of the object before the first one of the page.", TEXT)
ORDER = Parameter(
    "order", "query", "`desc`: the newest first.", {"type": "string", "enum": ["asc", "desc"], "default": "desc"}
)


def limit(most: int, default: int) -> Parameter:
    """How long a page may be."""
    schema: JsonObject = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return Parameter("limit", "query", "How many objects a page may have.", schema)
