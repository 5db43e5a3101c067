"""From a record with images to its parts: what `input.split` makes of them by tiles or by frames.

A part has the texts of its record and the pictures of one piece, in itself: it needs no other file, and any engine can read it. Whoever
reads the parts of a batch reads the file into which `plan` has written them (`headrace.api.worker.parts_input`).
"""

from __future__ import annotations

import binascii
import time
from collections.abc import Iterator
from typing import Any

from headrace.api.base import JsonObject
from headrace.api.content import ContentError, MediaPart, Modality, check_parts, media_parts
from headrace.api.input import Input
from headrace.api.model import Model
from headrace.api.parts import Part, PartReader, part_maker, part_names
from headrace.api.records import ErrorCode, RecordError, record_custom_id, record_fields
from headrace.api.splitting import Split
from headrace_worker.media.cutting import Piece, pieces
from headrace_worker.media.errors import MediaError
from headrace_worker.media.library import MediaLibrary

WAITS_SECONDS = (1.0, 4.0)
"""Between the tries to fetch an image whose server may answer later."""


def image_part_reader(spec: Input, model: Model | None) -> PartReader:
    """The reader for records whose images `spec.split` splits, of all images of a record one after the other.

    Raises `InvalidSpec` when the prompt's template is wrong. The reader raises `RecordError`, also for an image that cannot be had.
    """
    assert spec.split is not None
    split, make, library = spec.split, part_maker(spec, model), MediaLibrary(spec)

    def read(_: str, raw: bytes, __: int) -> Iterator[Part]:
        fields = record_fields(raw)
        parent, content = record_custom_id(fields), _checked(fields.get("content"))
        texts = [part for part in content if part.get("type", "text") == "text"]
        for position, piece in enumerate(_pieces(content, split, library)):
            pictures = [_picture(png) for png in piece.pictures]
            own = fields | part_names(parent, position, **piece.about) | {"content": [*texts, *pictures]}
            yield Part(make(own), 0.5, own)

    return read


def _checked(content: Any) -> list[JsonObject]:
    """The parts of a record, of which one at least is an image."""
    if not isinstance(content, list):
        raise _nothing_to_split("there must be parts in content, and an image among them")
    try:
        check_parts(content, "content")
    except ContentError as error:
        raise RecordError(ErrorCode.INVALID_CONTENT, str(error), error.param) from error
    kinds = [part.get("type") for part in content]
    if "image_url" not in kinds and "video_url" in kinds:
        raise _nothing_to_split("a video_url is not decoded here: give its frames as an animated GIF, WebP or PNG")
    if "image_url" not in kinds:
        raise _nothing_to_split("there must be an image in content")
    return content


def _nothing_to_split(message: str) -> RecordError:
    return RecordError(ErrorCode.SPLIT_ERROR, f"{message}: it is what input.split splits", "content")


def _pieces(content: list[JsonObject], split: Split, library: MediaLibrary) -> Iterator[Piece]:
    for number, image in enumerate(media_parts({"input": content}, Modality.IMAGE)):
        try:
            for piece in pieces(_fetched(library, image.url), split):
                yield piece._replace(about={"image": number, **piece.about})
        except MediaError as error:
            raise _refused(image, error) from error


def _fetched(library: MediaLibrary, url: str) -> bytes:
    """The bytes at a URL. Who does not answer is asked again: a plan refuses the whole input for one image that is missing."""
    for seconds in WAITS_SECONDS:
        try:
            return library.read(url)
        except MediaError as error:
            if not error.retriable:
                raise
        time.sleep(seconds)
    return library.read(url)


def _refused(image: MediaPart, error: MediaError) -> RecordError:
    place = image.param.replace("body.input", "content", 1)
    return RecordError(error.code, f"{place} {error.message}", place)


def _picture(png: bytes) -> JsonObject:
    data = binascii.b2a_base64(png, newline=False).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
