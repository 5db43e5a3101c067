"""From a record to its parts: what `input.split` makes of one line, or of one file of the format text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from headrace.api.base import JsonObject
from headrace.api.input import Input, InputFormat
from headrace.api.model import Model
from headrace.api.records import (
    ErrorCode,
    RecordError,
    Request,
    record_custom_id,
    record_fields,
    request_maker,
    text_fields,
)
from headrace.api.splitting import CUSTOM_ID, PART, Split, part_id, spans


class Part(NamedTuple):
    """One part of a record."""

    request: Request
    """It is a record of its own, with a `custom_id` of its own."""
    middle: float
    """Where its middle lies in the text, from 0 to 1."""
    fields: JsonObject
    """Those of its record, which templates and conditions see, with the text or the images of the part alone."""


PartReader = Callable[[str, bytes, int], Iterator[Part]]
"""From a file's name, a record's bytes and the position of the first part wanted to the parts. Raises `RecordError`."""


def part_reader(spec: Input, model: Model | None) -> PartReader:
    """The reader for records that `spec.split` splits; without a model the parts are looked at for their `custom_id` alone.

    Raises `InvalidSpec` when the prompt's template is wrong.
    """
    assert spec.split is not None
    split, is_text, make = spec.split, spec.format == InputFormat.TEXT, part_maker(spec, model)

    def read(name: str, raw: bytes, first: int) -> Iterator[Part]:
        fields = text_fields(name, raw) if is_text else record_fields(raw)
        parent, text = record_custom_id(fields), _text(fields, split)
        for position, (start, end) in islice(enumerate(spans(text, split)), first, None):
            own = fields | part_names(parent, position) | {split.field: text[start:end]}
            yield Part(make(own), (start + end) / (2 * len(text) or 1), own)

    return read


def part_maker(spec: Input, model: Model | None) -> Callable[[JsonObject], Request]:
    """From the fields of a part to its request; without a model it is empty. Raises `InvalidSpec` when the prompt's template is wrong."""
    return request_maker(spec, model) if model is not None else _id_alone


def part_names(parent: str, position: int, **about: int) -> JsonObject:
    """The fields that say which part of which record it is, and what else is known of it."""
    return {CUSTOM_ID: part_id(parent, position), PART: {"parent": parent, "position": position, **about}}


def _id_alone(fields: JsonObject) -> Request:
    return Request(record_custom_id(fields), {})


def _text(fields: JsonObject, split: Split) -> str:
    text: Any = fields.get(split.field)
    if isinstance(text, str):
        return text
    message = f"there must be a text in {split.field}: it is what input.split splits"
    raise RecordError(ErrorCode.SPLIT_ERROR, message, split.field)
