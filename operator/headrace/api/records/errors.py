"""What can be wrong with a record, in one word each."""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """Why a record has no result. Input codes are found before any work; the others end in the error file."""

    # found in the input
    EMPTY_INPUT = "empty_input"
    INPUT_TOO_LARGE = "input_too_large"
    INVALID_UTF8 = "invalid_utf8"
    INVALID_JSON = "invalid_json"
    INVALID_CSV = "invalid_csv"
    DAMAGED_FILE = "damaged_file"
    LINE_TOO_LONG = "line_too_long"
    NOT_AN_OBJECT = "not_an_object"
    UNKNOWN_FIELD = "unknown_field"
    MISSING_CUSTOM_ID = "missing_custom_id"
    INVALID_CUSTOM_ID = "invalid_custom_id"
    DUPLICATE_CUSTOM_ID = "duplicate_custom_id"
    INVALID_METHOD = "invalid_method"
    WRONG_ENDPOINT = "wrong_endpoint"
    INVALID_BODY = "invalid_body"
    INVALID_CONTENT = "invalid_content"
    WRONG_MODEL = "wrong_model"
    TEMPLATE_ERROR = "template_error"
    ROUTING_ERROR = "routing_error"
    SPLIT_ERROR = "split_error"
    NO_RECORD_TAKEN = "no_record_taken"
    INVALID_EXPECTED = "invalid_expected"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    # found while working
    INVALID_REQUEST = "invalid_request"
    ENGINE_ERROR = "engine_error"
    OUT_OF_MEMORY = "out_of_memory"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    MEDIA_NOT_ALLOWED = "media_not_allowed"
    MEDIA_TOO_LARGE = "media_too_large"
    MEDIA_UNREACHABLE = "media_unreachable"
    INVALID_MEDIA = "invalid_media"
    MOCK_ERROR = "mock_error"
    ENDPOINT_ERROR = "endpoint_error"
    ENDPOINT_TIMEOUT = "endpoint_timeout"
    ENDPOINT_DISCONNECTED = "endpoint_disconnected"
    INVALID_RESPONSE = "invalid_response"
    # never worked on
    BATCH_CANCELLED = "batch_cancelled"
    BATCH_EXPIRED = "batch_expired"
    BATCH_FAILED = "batch_failed"
    TOO_MANY_FAILED_RECORDS = "too_many_failed_records"
    SHARD_FAILED = "shard_failed"
    # found while joining
    NOT_ROUTED = "not_routed"
    NOT_ESCALATED = "not_escalated"
    NO_ANSWER = "no_answer"
    REQUIRED_BRANCH_MISSING = "required_branch_missing"
    NOT_ENOUGH_ANSWERS = "not_enough_answers"
    NOT_JOINABLE = "not_joinable"
    PARTS_MISSING = "parts_missing"


class RecordError(ValueError):
    """What is wrong with one record: an enumerated code, the field, and a sentence that says what must change."""

    def __init__(self, code: ErrorCode, message: str, param: str | None = None) -> None:
        self.code, self.message, self.param = code, message, param
        super().__init__(message)
